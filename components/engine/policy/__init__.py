"""What may ship and what is preferred, as users write it, and the figures that it is about."""
