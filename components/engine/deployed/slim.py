"""A `.tflite` without bytes that tell nobody anything.

Of what is not weights, most are scales: four bytes for every output channel, and four more for its bias, of which all
bits but the first few are noise that no packing gets rid of. Rounded to bfloat16 they change by 0.4 % at most, what
int8 rounds off its largest values, and pack to half the bytes. Names of tensors are paths through everything that the
converter has fused; here they are those of layers. The converter's notes are left out.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage
from collabopt.components.engine.deployed.layer_name import layer_of, name_of_bias, name_of_weights, short_name
from collabopt.components.engine.deployed.weights import READS_WEIGHTS, bias_input, constant_of

# Those of bfloat16: 7 bits and the leading one.
_SIGNIFICANT_BITS = 8
_DATA_INPUT = {"TRANSPOSE_CONV": 2}
_ROUNDED = ("int8", "int16")


@dataclass(frozen=True)
class _Weighted:
    """An operator with weights, by indices of tensors: what it reads, multiplies with, adds (None for no bias), writes.

    A bias that is computed, or not quantized, is none.
    """

    operator: str
    data: int
    weights: int
    bias: int | None
    output: int


def slim(tflite: bytes) -> bytes:
    """Rounds scales, shortens names, leaves out metadata. The integers of the weights stay as they are.

    So do scales of the model's inputs and outputs, which whoever feeds the file may have written down. Biases count in
    units of input scale times weight scale, and are counted anew.

    Args:
        tflite: The flatbuffer, of one subgraph; another is returned as it is.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    opened = open_flatbuffer(tflite)
    if len(opened.model.subgraphs) > 1:
        return tflite
    with refusing_damage():
        weighted = list(_weighted(opened))
        names = _short_names(opened, weighted)
        for tensor, name in zip(opened.graph.tensors, names, strict=True):
            tensor.name = name
        _round_scales(opened)
        biases = {each.bias: _recounted_bias(opened, each) for each in weighted if each.bias is not None}
        _collect_buffers(opened, biases)
        opened.model.description = opened.model.metadata = None
        return _written(opened.model)


def _weighted(opened: Flatbuffer) -> Iterator[_Weighted]:
    for operator, entry in opened.operators:
        if operator not in READS_WEIGHTS:
            continue
        weights = constant_of(opened, int(entry.inputs[1]))
        if weights is not None:
            data, bias = int(entry.inputs[_DATA_INPUT.get(operator, 0)]), bias_input(operator, entry)
            yield _Weighted(operator, data, weights, _stored_bias(opened, bias), int(entry.outputs[0]))


def _stored_bias(opened: Flatbuffer, index: int | None) -> int | None:
    if index is None:
        return None
    tensor = opened.graph.tensors[index]
    is_stored = len(opened.buffer(tensor)) > 0 and opened.dtype(tensor) == "int32"
    return index if is_stored and len(_scales(tensor)) else None


def _short_names(opened: Flatbuffer, weighted: list[_Weighted]) -> list[str]:
    names = [short_name(opened.name(tensor)) for tensor in opened.graph.tensors]
    for each in weighted:
        read = (each.weights, *((each.bias,) if each.bias is not None else ()), each.output)
        layer = next(filter(None, (layer_of(opened.name(opened.graph.tensors[i]), each.operator) for i in read)), "")
        if layer:
            names[each.output] = layer
            names[each.weights] = name_of_weights(layer, each.operator)
            if each.bias is not None:
                names[each.bias] = name_of_bias(layer)
    return names


def _round_scales(opened: Flatbuffer) -> None:
    """Equal scales stay equal: of a pooling, a reshaping and the like, input and output must have the same."""
    tensors = opened.graph.tensors
    written_down = {
        float(scale) for i in (*opened.graph.inputs, *opened.graph.outputs) for scale in _scales(tensors[i])
    }
    for tensor in tensors:
        scales = _scales(tensor)
        if len(scales) and opened.dtype(tensor) in _ROUNDED:
            tensor.quantization.scale = np.where(np.isin(scales, list(written_down)), scales, _to_bfloat16(scales))


def _to_bfloat16(scales: np.ndarray) -> np.ndarray:
    """Rounds float32 to the nearest number of eight significant bits."""
    significand, exponent = np.frexp(scales)
    steps = np.float32(2**_SIGNIFICANT_BITS)
    return np.ldexp(np.rint(significand * steps) / steps, exponent).astype(np.float32)


def _recounted_bias(opened: Flatbuffer, each: _Weighted) -> np.ndarray:
    """Gives a bias the scale that the scales before it make, and returns its values in units of that."""
    tensors = opened.graph.tensors
    bias = tensors[each.bias]
    integers = opened.buffer(bias).view(np.int32)
    old, new = _scales(bias), _scales(tensors[each.data])[0] * _scales(tensors[each.weights])
    new = np.where(new > 0, new, old)
    bias.quantization.scale = new
    return np.rint(integers * (old.astype(np.float64) / new)).astype(np.int32)


def _scales(tensor: Any) -> np.ndarray:
    scales = None if tensor.quantization is None else tensor.quantization.scale
    return np.asarray(() if scales is None else scales, np.float32)


def _collect_buffers(opened: Flatbuffer, contents: Mapping[int, np.ndarray]) -> None:
    """Gives every tensor its content; equal ones share a buffer, and the first one is empty, for what is computed."""
    from ai_edge_litert.schema_py_generated import BufferT

    numbers = {b"": 0}
    for index, tensor in enumerate(opened.graph.tensors):
        own = contents[index] if index in contents else opened.buffer(tensor)
        tensor.buffer = numbers.setdefault(own.tobytes(), len(numbers))
    opened.model.buffers = []
    for content in numbers:
        buffer = BufferT()
        buffer.data = np.frombuffer(content, np.uint8) if content else None
        opened.model.buffers.append(buffer)


def _written(model: Any) -> bytes:
    import flatbuffers

    builder = flatbuffers.Builder()
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
