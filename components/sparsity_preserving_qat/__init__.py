"""Fine-tune a pruned model with fake quantization and keep its zeros (PQAT)."""

from collabopt.components.sparsity_preserving_qat.component import sparsity_preserving_qat

__all__ = ["sparsity_preserving_qat"]
