"""Which layers carry weights worth compressing, and what has been won in them."""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import Claims

# Weights that are multiplied with activations, by the attribute that holds them. Depthwise kernels are left out: they
# are a few per cent of the weights, and pruning or clustering them costs accuracy that is not won back
# (https://www.tensorflow.org/model_optimization/guide/clustering/clustering_comprehensive_guide).
KERNEL_ATTRIBUTES = {
    "Conv1D": "kernel",
    "Conv1DTranspose": "kernel",
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "Dense": "kernel",
    "SeparableConv1D": "pointwise_kernel",
    "SeparableConv2D": "pointwise_kernel",
}


def compressible_kernels(model: Any) -> dict[str, np.ndarray]:
    """Layer name -> kernel of every layer of a kind that pruning and clustering work on, in the model's order."""
    return {layer.name: np.array(getattr(layer, attribute)) for layer, attribute in _compressible(model)}


def trainable_kernels(model: Any) -> dict[str, np.ndarray]:
    """As `compressible_kernels`, without layers that are frozen: those stay as they are."""
    trainable = {layer.name for layer in model.layers if layer.trainable}
    return {name: kernel for name, kernel in compressible_kernels(model).items() if name in trainable}


def channel_axis(layer: Any) -> int:
    """Axis of the output channels of a layer's kernel: the last, but before the input's in a transposed convolution."""
    ndim = len(getattr(layer, KERNEL_ATTRIBUTES[type(layer).__name__]).shape)
    return ndim - 2 if type(layer).__name__.endswith("Transpose") else ndim - 1


def claims_of(model: Any, *, pruned: Collection[str], clustered: Collection[str], per_channel: bool = False) -> Claims:
    """Measures what a plain fp32 model may claim.

    Args:
        model: A plain tf_keras model.
        pruned: Names of the layers whose zeros are to be kept.
        clustered: Names of the layers whose palettes are to be kept.
        per_channel: Whether every output channel has a palette of its own.
    """
    kernels = compressible_kernels(model)
    axes = {layer.name: channel_axis(layer) if per_channel else None for layer, _ in _compressible(model)}
    return Claims(
        sparsity={name: float(np.mean(kernels[name] == 0)) for name in kernels if name in pruned},
        zero_positions={name: zero_positions(kernels[name]) for name in kernels if name in pruned},
        clusters={name: distinct_values(kernels[name], axes[name]) for name in kernels if name in clustered},
        palette="channel" if per_channel and clustered else "tensor",
    )


def overall_sparsity(model: Any) -> float:
    """Share of exact zeros among all compressible weights; zero where there are none."""
    kernels = compressible_kernels(model).values()
    return sum(int(np.sum(kernel == 0)) for kernel in kernels) / max(1, sum(kernel.size for kernel in kernels))


def zero_positions(kernel: np.ndarray) -> str:
    """Digest of where a kernel is zero, as `Claims.zero_positions` has it."""
    return hashlib.sha256(np.packbits(kernel == 0).tobytes()).hexdigest()


def distinct_values(kernel: np.ndarray, axis: int | None) -> int:
    """Distinct values in a kernel, or the most on one slice along `axis`."""
    if axis is None:
        return len(np.unique(kernel))
    ordered = np.sort(np.moveaxis(kernel, axis, 0).reshape(kernel.shape[axis], -1), axis=1)
    return int(1 + np.max(np.count_nonzero(np.diff(ordered, axis=1), axis=1)))


def check_zero_positions(kernels: Mapping[str, np.ndarray], claims: Claims) -> None:
    """Holds a model to what its record says of it.

    Args:
        kernels: Layer name -> kernel, as `compressible_kernels` gives them.
        claims: The model's claims.

    Raises:
        CollaboptError: Zeros are elsewhere than claimed; the message names the layers.
    """
    claimed = claims.zero_positions.items()
    wrong = sorted(name for name, digest in claimed if name not in kernels or zero_positions(kernels[name]) != digest)
    if wrong:
        raise CollaboptError(
            f"the parent's zeros are not where its record says, in {', '.join(wrong)}",
            where=f"layer '{wrong[0]}'",
            todo="pass model and record of the same stage",
        )


def _compressible(model: Any) -> list[tuple[Any, str]]:
    kinds = [(layer, KERNEL_ATTRIBUTES.get(type(layer).__name__)) for layer in model.layers]
    return [(layer, attribute) for layer, attribute in kinds if attribute is not None]
