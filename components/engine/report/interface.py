"""What a `.tflite` takes and gives: shapes, types, and how numbers are quantized."""

from dataclasses import dataclass
from typing import Any

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage


@dataclass(frozen=True)
class TensorSpec:
    """One input or output; `real = scale * (stored - zero_point)`.

    Attributes:
        name: Its name in the file.
        shape: Its shape; -1 for an axis of any size.
        dtype: Type of the stored values.
        scale: Quantization scale; None for floats.
        zero_point: What stands for 0; None for floats.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scale: float | None
    zero_point: int | None


@dataclass(frozen=True)
class Interface:
    """Inputs and outputs of a file, in its order."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def interface_of(tflite: bytes) -> Interface:
    """Reads inputs and outputs of subgraph 0, the one that LiteRT runs by default.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    opened = open_flatbuffer(tflite)
    with refusing_damage():
        return Interface(
            tuple(_spec(opened, opened.graph.tensors[index]) for index in opened.graph.inputs),
            tuple(_spec(opened, opened.graph.tensors[index]) for index in opened.graph.outputs),
        )


def _spec(opened: Flatbuffer, tensor: Any) -> TensorSpec:
    quantization = tensor.quantization
    scales = [] if quantization is None or quantization.scale is None else quantization.scale
    zero_points = [] if quantization is None or quantization.zeroPoint is None else quantization.zeroPoint
    signature = tensor.shapeSignature
    shape = tensor.shape if signature is None or not len(signature) else signature
    return TensorSpec(
        name=opened.name(tensor),
        shape=tuple(int(size) for size in ([] if shape is None else shape)),
        dtype=opened.dtype(tensor),
        scale=float(scales[0]) if len(scales) else None,
        zero_point=int(zero_points[0]) if len(zero_points) else None,
    )
