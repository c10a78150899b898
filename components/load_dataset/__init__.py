"""Read a data set, split it, and store it for every later stage."""

from collabopt.components.load_dataset.component import load_dataset

__all__ = ["load_dataset"]
