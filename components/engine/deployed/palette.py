"""One palette per deployed tensor, where the converter has made one for every output channel.

Post-training quantization scales every output channel by its own largest weight, after multiplying a
BatchNormalization into it. The few values that a clustered kernel has for all its channels come out as other integers
in each. Scaling every channel by the largest weight of the whole kernel instead, and leaving the BatchNormalization to
the scales, gives the kernel's own values the same integers everywhere: as few as there are clusters, which is what
entropy coders, ZIP and the palettes of NPU weight decoders use. Zeros stay zeros.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from collabopt.components.engine.deployed.layers import DeployedKernel, dequantized, find_kernels
from collabopt.components.engine.deployed.weights import read_weights

_LARGEST_INT8 = 127
# How far a weight may lie from its kernel, in steps of its scale: half a step is rounding, the rest is for the factor.
_ROUNDING_STEPS = 1.5


def restore_palettes(tflite: bytes, kernels: Mapping[str, np.ndarray]) -> bytes:
    """Requantizes clustered tensors with one palette each; nothing else in the file changes, nor does its size.

    Args:
        tflite: The flatbuffer.
        kernels: Clustered layer -> its fp32 kernel as it was converted, as `kernels_as_deployed` gives it.

    Returns:
        The flatbuffer with new weights, weight scales, biases and bias scales of those layers. A tensor that has one
        scale already, or no more distinct values than its kernel, stays as it is; so does one whose bytes another
        tensor shares, because the file holds equal tensors once, and one that is not its kernel with every output
        channel scaled. The contract check then finds the palette split.
    """
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(tflite)
    model = schema.Model.GetRootAs(content, 0)
    graph = model.Subgraphs(0)
    biases = _biases(graph)
    uses = Counter(graph.Tensors(number).Buffer() for number in range(graph.TensorsLength()))
    for deployed in find_kernels(read_weights(tflite), kernels):
        tensor = graph.Tensors(deployed.tensor.index)
        rescaled = [graph.Tensors(bias) for bias in biases.get(deployed.tensor.index, ())]
        if deployed.tensor.dtype != "int8" or not _is_split(deployed) or not _is_scaled_by_channel(deployed):
            continue
        written = Counter(each.Buffer() for each in (tensor, *rescaled))
        if any(_is_shared(model, buffer, uses[buffer] - count) for buffer, count in written.items()):
            continue
        _rescale_biases(model, rescaled, _requantize(model, tensor, deployed))
    return bytes(content)


def _is_split(deployed: DeployedKernel) -> bool:
    by_channel = len(deployed.tensor.scales) == len(deployed.kernel)
    return by_channel and len(np.unique(deployed.tensor.values)) > len(np.unique(deployed.kernel))


def _is_scaled_by_channel(deployed: DeployedKernel) -> bool:
    """Whether the tensor is the kernel times a factor for every output channel, and nothing else.

    The converter may also push a BatchNormalization forward, into the input channels of the next layer. Those factors
    cannot go into the scales: writing the kernel's own values would change what the model computes.
    """
    expected = deployed.kernel * deployed.factors[:, np.newaxis]
    steps = np.abs(dequantized(deployed.tensor) - expected) / np.reshape(deployed.tensor.scales, (-1, 1))
    return float(steps.max()) <= _ROUNDING_STEPS


def _is_shared(model: Any, buffer: int, others: int) -> bool:
    """Whether writing a buffer would change other tensors; buffers of zeros stay what they are."""
    return others > 0 and bool(model.Buffers(buffer).DataAsNumpy().any())


def _requantize(model: Any, tensor: Any, deployed: DeployedKernel) -> np.ndarray:
    """Writes a tensor's new integers and scales, and returns new scale / old scale of every channel."""
    largest = float(np.abs(deployed.kernel).max())
    integers = np.rint(deployed.kernel / largest * _LARGEST_INT8) * np.sign(deployed.factors)[:, np.newaxis]
    old = tensor.Quantization().ScaleAsNumpy()
    new = np.where(deployed.factors == 0, old, np.abs(deployed.factors) * largest / _LARGEST_INT8).astype(np.float32)
    shape = deployed.tensor.values.shape
    axis = deployed.tensor.channel_axis
    moved = (shape[axis], *(size for number, size in enumerate(shape) if number != axis))
    values = np.moveaxis(integers.reshape(moved), 0, axis).astype(np.int8)
    model.Buffers(tensor.Buffer()).DataAsNumpy()[:] = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
    stretch = new / old
    old[:] = new
    return stretch


def _rescale_biases(model: Any, biases: Sequence[Any], stretch: np.ndarray) -> None:
    """A bias counts in units of input scale times weight scale. A layer that is called twice has two on one buffer."""
    for buffer in {bias.Buffer() for bias in biases}:
        integers = model.Buffers(buffer).DataAsNumpy().view(np.int32)
        integers[:] = np.rint(integers / stretch.astype(np.float64)).astype(np.int32)
    for bias in biases:
        bias.Quantization().ScaleAsNumpy()[:] *= stretch


def _biases(graph: Any) -> dict[int, list[int]]:
    """Weight tensor -> the bias tensors that are used with it: the last input, of 32-bit integers."""
    from ai_edge_litert import schema_py_generated as schema

    found: dict[int, list[int]] = {}
    for number in range(graph.OperatorsLength()):
        operator = graph.Operators(number)
        if operator.InputsLength() < 3:
            continue
        weights, last = operator.Inputs(1), operator.Inputs(operator.InputsLength() - 1)
        is_bias = last >= 0 and graph.Tensors(last).Type() == schema.TensorType.INT32
        if is_bias and last not in found.setdefault(weights, []):
            found[weights].append(last)
    return found
