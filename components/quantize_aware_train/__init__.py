"""Fine-tune a model with fake quantization (QAT) and convert it to int8."""

from collabopt.components.quantize_aware_train.component import quantize_aware_train

__all__ = ["quantize_aware_train"]
