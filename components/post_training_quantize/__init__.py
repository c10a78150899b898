"""Quantize a model to full-integer int8 without training."""

from collabopt.components.post_training_quantize.component import post_training_quantize

__all__ = ["post_training_quantize"]
