"""Opens the flatbuffer of a `.tflite` without trusting it."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError

# What reading at an offset that lies outside the file, or a value outside its enumeration, ends in.
_SIGNS_OF_DAMAGE = (
    *(struct.error, IndexError, KeyError, ValueError, TypeError, AttributeError, OverflowError, MemoryError),
    AssertionError,
)
_SMALLEST_ENTRY_BYTES = 4


@dataclass(frozen=True, eq=False)
class Flatbuffer:
    """An unpacked model and its first subgraph, the one that LiteRT runs by default.

    Attributes:
        tflite: The bytes.
        model: `schema_py_generated.ModelT`.
    """

    tflite: bytes
    model: Any

    @property
    def graph(self) -> Any:
        """The first subgraph (`SubGraphT`)."""
        return self.model.subgraphs[0]

    @cached_property
    def operators(self) -> list[tuple[str, Any]]:
        """Name and `OperatorT` of every operator, in order of execution."""
        from ai_edge_litert.schema_py_generated import BuiltinOperator

        names = _names(BuiltinOperator)
        # Codes below 127 lie in a deprecated field, for old readers.
        numbers = [max(code.builtinCode, code.deprecatedBuiltinCode) for code in self.model.operatorCodes or ()]
        codes = [names.get(number, f"OPERATOR_{number}") for number in numbers]
        return [(codes[operator.opcodeIndex], operator) for operator in self.graph.operators or ()]

    @cached_property
    def producers(self) -> dict[int, tuple[str, Any]]:
        """Tensor index -> name and `OperatorT` of the operator that writes it."""
        return {int(index): entry for entry in self.operators for index in entry[1].outputs}

    def dtype(self, tensor: Any) -> str:
        """Type of a tensor, in lower case as `int8`."""
        from ai_edge_litert.schema_py_generated import TensorType

        return _names(TensorType).get(tensor.type, f"type {tensor.type}").lower()

    def name(self, tensor: Any) -> str:
        """Name of a tensor; names are optional in the format."""
        return (tensor.name or b"").decode(errors="replace")

    def buffer(self, tensor: Any) -> np.ndarray:
        """Bytes of a constant tensor as uint8; empty for a tensor that is computed."""
        return self.buffer_bytes(tensor.buffer)

    def buffer_bytes(self, index: int) -> np.ndarray:
        """Bytes of a buffer as uint8, a view of the file. Files above 2 GB keep them behind the flatbuffer."""
        buffer = self.model.buffers[index]
        if buffer.offset > 1:
            return np.frombuffer(self.tflite, np.uint8, count=buffer.size, offset=buffer.offset)
        return np.asarray(() if buffer.data is None else buffer.data, dtype=np.uint8)


def open_flatbuffer(tflite: bytes) -> Flatbuffer:
    """Unpacks the bytes of a `.tflite`.

    Raises:
        CollaboptError: They are not a TFLite model, or a damaged one.
    """
    from ai_edge_litert.schema_py_generated import Model, ModelT

    if tflite[4:8] != b"TFL3":
        raise CollaboptError("these bytes are not a TFLite model", todo="pass a .tflite file")
    with refusing_damage():
        _check_entries_fit(Model.GetRootAs(tflite, 0), len(tflite))
        opened = Flatbuffer(tflite, ModelT.InitFromPackedBuf(tflite, 0))
        _fill_in(opened.model)
        _check_indices(opened)
    return opened


@contextmanager
def refusing_damage() -> Iterator[None]:
    """Turns what a damaged flatbuffer ends in into an error that says so."""
    try:
        yield
    except _SIGNS_OF_DAMAGE as error:
        raise CollaboptError(
            "this TFLite model is damaged", todo="the file may be cut off; copy or convert it again"
        ) from error


def _check_entries_fit(model: Any, available: int) -> None:
    """Every entry of a vector takes bytes of its own; vectors that a damaged file shares would unpack without end."""
    entries = model.BuffersLength() + model.OperatorCodesLength() + model.SubgraphsLength() + model.MetadataLength()
    for position in range(model.SubgraphsLength()):
        graph = model.Subgraphs(position)
        entries += graph.TensorsLength() + graph.OperatorsLength()
        if entries * _SMALLEST_ENTRY_BYTES > available:
            raise ValueError("more entries than bytes")


def _fill_in(model: Any) -> None:
    """Gives vectors that the file leaves out the empty value that they stand for."""
    if not model.subgraphs:
        raise ValueError("no subgraph")
    for holder in (model.subgraphs[0], *(model.subgraphs[0].operators or ())):
        holder.inputs = () if holder.inputs is None else holder.inputs
        holder.outputs = () if holder.outputs is None else holder.outputs


def _check_indices(opened: Flatbuffer) -> None:
    tensors, buffers = len(opened.graph.tensors), len(opened.model.buffers)
    for holder in (opened.graph, *(operator for _, operator in opened.operators)):
        if any(not -1 <= index < tensors for index in (*holder.inputs, *holder.outputs)):
            raise IndexError("a tensor is named that does not exist")
    for tensor in opened.graph.tensors:
        if not 0 <= tensor.buffer < buffers:
            raise IndexError("a tensor names a buffer that does not exist")


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}
