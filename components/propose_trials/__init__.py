"""Learn from the trials of a search so far, and propose the next ones."""

from collabopt.components.propose_trials.component import propose_trials

__all__ = ["propose_trials"]
