"""Fine-tune a clustered model with fake quantization and keep its clusters (CQAT)."""

from collabopt.components.cluster_preserving_qat.component import cluster_preserving_qat

__all__ = ["cluster_preserving_qat"]
