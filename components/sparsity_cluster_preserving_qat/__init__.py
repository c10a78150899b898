"""Fine-tune a pruned and clustered model with fake quantization and keep both (PCQAT)."""

from collabopt.components.sparsity_cluster_preserving_qat.component import sparsity_cluster_preserving_qat

__all__ = ["sparsity_cluster_preserving_qat"]
