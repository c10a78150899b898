"""Predict what every leaf will weigh and cost, and say which stages need not be trained."""

from collabopt.components.prescreen.component import prescreen

__all__ = ["prescreen"]
