"""Prune a model by weight magnitude while fine-tuning it."""

from collabopt.components.prune.component import prune

__all__ = ["prune"]
