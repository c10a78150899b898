"""How much memory the activations of a `.tflite` need."""

import math
from typing import Any

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage

# Type -> bits of a value. Types that are missing, as strings and resources, have no size of their own.
_BITS = {
    **{"int2": 2, "int4": 4, "uint4": 4, "bool": 8, "int8": 8, "uint8": 8},
    **{"int16": 16, "uint16": 16, "float16": 16, "bfloat16": 16},
    **{"int32": 32, "uint32": 32, "float32": 32},
    **{"int64": 64, "uint64": 64, "float64": 64, "complex64": 64, "complex128": 128},
}


def activation_bytes(tflite: bytes) -> int:
    """The most bytes of activations that are alive at once; see `activation_bytes_of`.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    return activation_bytes_of(open_flatbuffer(tflite))


def activation_bytes_of(opened: Flatbuffer) -> int:
    """The most bytes of activations that are alive at once, while the first subgraph runs in the order of the file.

    An estimate from below: without alignment, scratch buffers, other subgraphs, and the runtime's own needs. A tensor
    lives from the operator that writes it to the last one that reads it; inputs live from the start, outputs to the
    end, variables always. No memory is shared between input and output of an operator.

    Args:
        opened: The file; dimensions that it leaves open, as the batch, count as it states them: 1.
    """
    with refusing_damage():
        changes = [0] * (len(opened.operators) + 2)
        for index, (first, last) in _lives(opened).items():
            size = _bytes(opened, opened.graph.tensors[index])
            changes[first] += size
            changes[last + 1] -= size
        alive = most = 0
        for change in changes:
            alive += change
            most = max(most, alive)
        return most


def _lives(opened: Flatbuffer) -> dict[int, tuple[int, int]]:
    """Tensor that is computed -> the first and the last operator at which it is alive."""
    end = max(0, len(opened.operators) - 1)
    lives = {int(index): (0, 0) for index in opened.graph.inputs}
    for number, (_, operator) in enumerate(opened.operators):
        for index in map(int, operator.inputs):
            if index in lives:
                lives[index] = (lives[index][0], number)
        for index in map(int, operator.outputs):
            lives.setdefault(index, (number, number))
    lives |= {int(index): (lives[int(index)][0], end) for index in opened.graph.outputs if int(index) in lives}
    lives |= {number: (0, end) for number, tensor in enumerate(opened.graph.tensors) if tensor.isVariable}
    return {index: life for index, life in lives.items() if index >= 0}


def _bytes(opened: Flatbuffer, tensor: Any) -> int:
    values = math.prod(int(size) for size in (() if tensor.shape is None else tensor.shape))
    return math.ceil(values * _BITS.get(opened.dtype(tensor), 0) / 8)
