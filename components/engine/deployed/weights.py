"""Reads the weights out of a `.tflite`: sparse-encoded, packed int4 and float16 ones too."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage
from collabopt.components.engine.deployed.sparse_encoding import to_dense
from collabopt.components.engine.errors import CollaboptError

# Operator -> axis of the output channels in its weights, which are its second input, as TFLite's schema lays them out.
_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0, "CONV_3D": 4}
_MATMUL = "BATCH_MATMUL"
READS_WEIGHTS = frozenset({*_CHANNEL_AXIS, _MATMUL})
# Position of the bias among an operator's inputs where it is not 2.
_BIAS_INPUT = {"TRANSPOSE_CONV": 3}
_BETWEEN_CONSTANT_AND_READER = ("DENSIFY", "DEQUANTIZE")
# Type -> bits of a value, of which a byte holds several, and whether it has a sign.
_PACKED = {"int4": (4, True), "uint4": (4, False), "int2": (2, True)}
_STORED_PLAIN = ("int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64")


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """One weight tensor, decoded.

    Attributes:
        index: Index of the tensor in subgraph 0.
        name: Its name in the file.
        op: First builtin operator that reads it; not the DENSIFY or DEQUANTIZE in between.
        dtype: Type of the stored values, as `int8`, `int4`, `float32`.
        values: The values in their dense shape; int4 as an int8 array.
        channel_axis: Axis of the output channels.
        scales: float32, one or one per channel; empty for float weights.
        quantization_axis: Axis that the scales run along; None for one scale or none.
        zero_point: What stands for zero.
        stored_bytes: Bytes of its buffer.
        sparse_encoded: Whether the buffer holds only what is not zero.
        names_nearby: Names of the bias and of the output of that operator, which may tell of the layer where the
            tensor's own name does not.
    """

    index: int
    name: str
    op: str
    dtype: str
    values: np.ndarray
    channel_axis: int
    scales: np.ndarray
    quantization_axis: int | None
    zero_point: int
    stored_bytes: int
    sparse_encoded: bool
    names_nearby: tuple[str, ...] = ()

    @property
    def entropy_bits(self) -> float:
        """Shannon entropy of the values, bits per weight: what no code for single weights gets below on average."""
        counts = np.unique(self.values, return_counts=True)[1].tolist()
        total = sum(counts)
        return abs(math.fsum(count / total * math.log2(count / total) for count in counts))

    @property
    def channels(self) -> np.ndarray:
        """The values as `[output channels, the rest]`."""
        channels = self.values.shape[self.channel_axis]
        return np.moveaxis(self.values, self.channel_axis, 0).reshape(channels, -1)


def read_weights(tflite: bytes) -> list[StoredWeights]:
    """Reads the weights of convolutions and matrix multiplications in subgraph 0, the one LiteRT runs by default.

    A tensor that several operators read is listed once.

    Args:
        tflite: The flatbuffer.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    return weights_of(open_flatbuffer(tflite))


def weights_of(opened: Flatbuffer) -> list[StoredWeights]:
    """Reads the weights out of an opened file; see `read_weights`."""
    found: dict[int, StoredWeights] = {}
    with refusing_damage():
        for name, operator in opened.operators:
            if name not in READS_WEIGHTS:
                continue
            index = constant_of(opened, int(operator.inputs[1]))
            if index is not None and index not in found:
                nearby = [number for number in (*operator.inputs[2:], *operator.outputs) if number >= 0]
                names = tuple(opened.name(opened.graph.tensors[number]) for number in nearby)
                found[index] = _read(opened, index, name, _channel_axis(opened, name, operator), names)
    return list(found.values())


def constant_of(opened: Flatbuffer, index: int) -> int | None:
    """Index of the stored tensor that a tensor is unpacked from, if it is not itself; None where it is computed."""
    for _ in range(len(_BETWEEN_CONSTANT_AND_READER) + 1):
        if len(opened.buffer(opened.graph.tensors[index])):
            return index
        producer, operator = opened.producers.get(index, ("", None))
        if producer not in _BETWEEN_CONSTANT_AND_READER:
            return None
        index = int(operator.inputs[0])
    return None


def bias_input(name: str, operator: Any) -> int | None:
    """Index of the tensor that an operator with weights adds; None where it adds none."""
    position = _BIAS_INPUT.get(name, 2)
    has_bias = name != _MATMUL and len(operator.inputs) > position and operator.inputs[position] >= 0
    return int(operator.inputs[position]) if has_bias else None


def _channel_axis(opened: Flatbuffer, name: str, operator: Any) -> int:
    if name != _MATMUL:
        return _CHANNEL_AXIS[name]
    rank = len(opened.graph.tensors[operator.inputs[1]].shape)
    return rank - 2 if operator.builtinOptions is not None and operator.builtinOptions.adjY else rank - 1


def _read(
    opened: Flatbuffer, index: int, operator: str, channel_axis: int, names_nearby: tuple[str, ...]
) -> StoredWeights:
    tensor = opened.graph.tensors[index]
    buffer = opened.buffer(tensor)
    dtype = opened.dtype(tensor)
    quantization = tensor.quantization
    scales = np.asarray(_listed(quantization, "scale"), dtype=np.float32)
    zero_points = _listed(quantization, "zeroPoint")
    values = _decode(buffer, dtype, tensor.sparsity, [int(size) for size in tensor.shape])
    if not 0 <= channel_axis < values.ndim:
        raise ValueError("weights without output channels")
    if len(scales) > 1 and len(scales) != values.shape[quantization.quantizedDimension]:
        raise ValueError("as many scales as channels are needed")
    return StoredWeights(
        index=index,
        name=opened.name(tensor),
        op=operator,
        dtype=dtype,
        values=values,
        channel_axis=channel_axis,
        scales=scales,
        quantization_axis=int(quantization.quantizedDimension) if len(scales) > 1 else None,
        zero_point=int(zero_points[0]) if len(zero_points) else 0,
        stored_bytes=len(buffer),
        sparse_encoded=tensor.sparsity is not None,
        names_nearby=names_nearby,
    )


def _listed(quantization: Any, field: str) -> Any:
    values = None if quantization is None else getattr(quantization, field)
    return () if values is None else values


def _decode(buffer: np.ndarray, dtype: str, sparsity: Any, shape: list[int]) -> np.ndarray:
    if min(shape, default=0) < 1:
        raise ValueError("weights without values")
    stored = _values(buffer, dtype)
    if sparsity is not None:
        return to_dense(stored, sparsity, shape)
    return (stored[: math.prod(shape)] if dtype in _PACKED else stored).reshape(shape)


def _values(buffer: np.ndarray, dtype: str) -> np.ndarray:
    if dtype in _PACKED:
        return _unpack(buffer, *_PACKED[dtype])
    if dtype == "bfloat16":
        return (buffer.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    if dtype not in _STORED_PLAIN:
        raise CollaboptError(
            f"weights stored as {dtype} cannot be read", todo="the types known are those of LiteRT 2.1"
        )
    return np.frombuffer(buffer.tobytes(), np.dtype(dtype))


def _unpack(buffer: np.ndarray, bits: int, signed: bool) -> np.ndarray:
    """Splits bytes into values, lowest bits first."""
    values = (buffer[:, np.newaxis] >> np.arange(0, 8, bits, dtype=np.uint8)).reshape(-1) & (2**bits - 1)
    if not signed:
        return values.astype(np.uint8)
    return (values.astype(np.int8) ^ 2 ** (bits - 1)) - np.int8(2 ** (bits - 1))
