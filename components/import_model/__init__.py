"""Accept a trained Keras model as the baseline of the tree."""

from collabopt.components.import_model.component import import_model

__all__ = ["import_model"]
