"""Which layers carry weights worth compressing, and what has been won in them."""

import hashlib
from typing import Any

import numpy as np

from collabopt.components.engine.records import Claims

# Weights that are multiplied with activations, by the attribute that holds them. Depthwise kernels are left out: they
# are a few per cent of the weights, and pruning or clustering them costs accuracy that is not won back
# (https://www.tensorflow.org/model_optimization/guide/clustering/clustering_comprehensive_guide).
_KERNEL_ATTRIBUTES = {
    "Conv1D": "kernel",
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "Dense": "kernel",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}


def compressible_kernels(model: Any) -> dict[str, np.ndarray]:
    """Layer name -> kernel of every layer that pruning and clustering work on, in the model's order."""
    kernels = {}
    for layer in model.layers:
        attribute = _KERNEL_ATTRIBUTES.get(type(layer).__name__)
        if attribute is not None:
            kernels[layer.name] = np.asarray(getattr(layer, attribute))
    return kernels


def claims_of(model: Any, *, pruned: bool, clustered: bool, per_channel: bool = False) -> Claims:
    """Measures what a stripped fp32 model may claim.

    Args:
        model: A plain tf_keras model.
        pruned: Whether it has been pruned, so that its zeros are to be kept.
        clustered: Whether it has been clustered, so that its palettes are to be kept.
        per_channel: Whether clusters were made per output channel (the last axis) of Conv2D kernels.
    """
    kernels = compressible_kernels(model)
    return Claims(
        sparsity={name: float(np.mean(kernel == 0)) for name, kernel in kernels.items()} if pruned else {},
        zero_positions={name: _mask_digest(kernel) for name, kernel in kernels.items()} if pruned else {},
        clusters={name: _distinct_values(kernel, per_channel) for name, kernel in kernels.items()} if clustered else {},
    )


def overall_sparsity(model: Any) -> float:
    """Share of exact zeros among all compressible weights."""
    kernels = compressible_kernels(model).values()
    return sum(int(np.sum(kernel == 0)) for kernel in kernels) / sum(kernel.size for kernel in kernels)


def _distinct_values(kernel: np.ndarray, per_channel: bool) -> int:
    if per_channel and kernel.ndim == 4:
        return max(len(np.unique(kernel[..., channel])) for channel in range(kernel.shape[-1]))
    return len(np.unique(kernel))


def _mask_digest(kernel: np.ndarray) -> str:
    return hashlib.sha256(np.packbits(kernel == 0).tobytes()).hexdigest()
