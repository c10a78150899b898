"""Pruning, clustering and quantization-aware training: TensorFlow Model Optimization, one method per file."""
