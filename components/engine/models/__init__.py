"""Models in and out of Keras."""
