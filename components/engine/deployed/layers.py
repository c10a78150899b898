"""Which weight tensor of a `.tflite` holds which layer's kernel.

Conversion renames tensors, transposes kernels, and multiplies a BatchNormalization into their output channels. So a
tensor is recognised by what it holds: the kernel whose channels point the same way as its own, whatever their lengths;
its name decides only where that leaves a choice.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collabopt.components.engine.compression.kernels import KERNEL_ATTRIBUTES, channel_axis
from collabopt.components.engine.deployed.weights import StoredWeights

# Cosine above which a tensor is taken for a kernel: 8 bits leave more than 0.99, fine-tuning between the two some less,
# and two different kernels of a network are near 0.
_ALIKE = 0.7


@dataclass(frozen=True, eq=False)
class DeployedKernel:
    """A layer's kernel in a file.

    Attributes:
        layer: Name of the Keras layer.
        kernel: Its fp32 kernel, `[output channels, weights of a channel]` in the file's order.
        tensor: The tensor that holds it.
        factors: `[output channels]`, what conversion has multiplied every channel with; 0 where there is nothing to
            tell it by.
    """

    layer: str
    kernel: np.ndarray
    tensor: StoredWeights
    factors: np.ndarray


def kernels_as_deployed(model: Any) -> dict[str, np.ndarray]:
    """Layer name -> its kernel as `[output channels, weights of a channel]`, in the order that TFLite keeps."""
    return {
        layer.name: _by_output_channel(layer) for layer in model.layers if type(layer).__name__ in KERNEL_ATTRIBUTES
    }


def find_kernels(tensors: Iterable[StoredWeights], kernels: Mapping[str, np.ndarray]) -> list[DeployedKernel]:
    """Finds the layers' kernels among the weight tensors of a file.

    Args:
        tensors: Weight tensors as `read_weights` gives them.
        kernels: Layer name -> kernel, as `kernels_as_deployed` gives them.

    Returns:
        One entry for every tensor and layer whose kernel it holds: several for a layer that the file holds several
        times, and several for a tensor where layers have equal weights.
    """
    found = []
    for tensor in tensors:
        values = dequantized(tensor)
        candidates = {
            name: _similarity(values, kernel) + _is_named(tensor, name)
            for name, kernel in kernels.items()
            if kernel.shape == values.shape
        }
        best = max(candidates, key=lambda name: candidates[name], default=None)
        if best is None or candidates[best] < _ALIKE:
            continue
        # Layers of equal weights may share a tensor.
        equal = [name for name in candidates if np.array_equal(kernels[name], kernels[best])]
        found += [DeployedKernel(name, kernels[name], tensor, _factors(values, kernels[name])) for name in equal]
    return found


def dequantized(tensor: StoredWeights) -> np.ndarray:
    """Real values of a weight tensor, `[output channels, weights of a channel]`."""
    if not len(tensor.scales):
        return tensor.channels.astype(np.float32)
    return (tensor.channels.astype(np.float32) - tensor.zero_point) * np.reshape(tensor.scales, (-1, 1))


def _by_output_channel(layer: Any) -> np.ndarray:
    kernel = np.moveaxis(np.asarray(getattr(layer, KERNEL_ATTRIBUTES[type(layer).__name__])), channel_axis(layer), 0)
    return kernel.reshape(len(kernel), -1)


def _similarity(values: np.ndarray, kernel: np.ndarray) -> float:
    """Mean cosine of the channels, weighted by their lengths; a channel may be stretched or turned by conversion."""
    lengths = np.linalg.norm(values, axis=1) * np.linalg.norm(kernel, axis=1)
    total = float(lengths.sum())
    return float(np.abs(np.sum(values * kernel, axis=1)).sum()) / total if total else 0.0


def _is_named(tensor: StoredWeights, layer: str) -> bool:
    parts = {part for name in tensor.name.split(";") for part in name.split("/")}
    return layer in parts or f"quant_{layer}" in parts


def _factors(values: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    """Least squares, channel by channel."""
    squares = np.sum(kernel**2, axis=1)
    return np.divide(np.sum(values * kernel, axis=1), squares, out=np.zeros_like(squares), where=squares > 0)
