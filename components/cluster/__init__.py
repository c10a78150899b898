"""Cluster a model's weights while fine-tuning it."""

from collabopt.components.cluster.component import cluster

__all__ = ["cluster"]
