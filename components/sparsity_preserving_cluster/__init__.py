"""Cluster a pruned model's weights and keep its zeros."""

from collabopt.components.sparsity_preserving_cluster.component import sparsity_preserving_cluster

__all__ = ["sparsity_preserving_cluster"]
