"""Check a run's parameters and settings before anything is spent on it."""

from collabopt.components.configure.component import configure

__all__ = ["configure"]
