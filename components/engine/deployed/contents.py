"""What the bytes of a `.tflite` are spent on."""

from typing import Any

import numpy as np

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, refusing_damage
from collabopt.components.engine.deployed.weights import READS_WEIGHTS, StoredWeights, bias_input, constant_of

REST = "graph and alignment"
CATEGORIES = (
    "weights",
    "biases",
    "other constants",
    "scales",
    "zero points",
    "sparse indices",
    "names",
    "metadata",
    REST,
)
# Where a flatbuffer's tables keep their strings: 4 + 2 * position of the field in the schema.
_TENSOR_NAME = 10
_SUBGRAPH_NAME = 12
_METADATA_NAME = 4
_CUSTOM_CODE = 6
_DESCRIPTION = 10
_SIGNATURE_KEY = 8
_ARGUMENT_NAME = 4


def contents_of(opened: Flatbuffer, weights: list[StoredWeights]) -> dict[str, bytes]:
    """Splits a file by what its bytes are for.

    Bytes that several tables share count once. Lengths, offsets, tables and padding are `graph and alignment`.

    Args:
        opened: The file.
        weights: Its weight tensors.

    Returns:
        Category -> its bytes in the file's order; together they are as many as the file's.
    """
    with refusing_damage():
        plan = _FloorPlan(opened.tflite)
        _name_strings(plan, opened)
        _name_parameters(plan, opened)
        _name_buffers(plan, opened, weights)
    return plan.bytes_by_category()


class _FloorPlan:
    """Category of every byte; what is named later wins."""

    def __init__(self, tflite: bytes) -> None:
        self._content = np.frombuffer(tflite, np.uint8)
        self._category = np.full(len(tflite), CATEGORIES.index(REST), np.uint8)

    def name(self, category: str, array: Any) -> None:
        """Names the bytes that an array, a view of the file, lies on."""
        if isinstance(array, np.ndarray) and array.size:
            self.name_span(category, array.ctypes.data - self._content.ctypes.data, array.nbytes)

    def name_span(self, category: str, start: int, length: int) -> None:
        """Names `length` bytes from `start`."""
        self._category[start : start + length] = CATEGORIES.index(category)

    def bytes_by_category(self) -> dict[str, bytes]:
        return {
            category: self._content[self._category == number].tobytes() for number, category in enumerate(CATEGORIES)
        }


def _name_strings(plan: _FloorPlan, opened: Flatbuffer) -> None:
    from ai_edge_litert.schema_py_generated import Model

    model = Model.GetRootAs(opened.tflite, 0)
    named = [(model, _DESCRIPTION)]
    named += [(model.OperatorCodes(i), _CUSTOM_CODE) for i in range(model.OperatorCodesLength())]
    named += [(model.Metadata(i), _METADATA_NAME) for i in range(model.MetadataLength())]
    for graph in (model.Subgraphs(i) for i in range(model.SubgraphsLength())):
        named.append((graph, _SUBGRAPH_NAME))
        named += [(graph.Tensors(i), _TENSOR_NAME) for i in range(graph.TensorsLength())]
    for signature in (model.SignatureDefs(i) for i in range(model.SignatureDefsLength())):
        named.append((signature, _SIGNATURE_KEY))
        named += [(signature.Inputs(i), _ARGUMENT_NAME) for i in range(signature.InputsLength())]
        named += [(signature.Outputs(i), _ARGUMENT_NAME) for i in range(signature.OutputsLength())]
    for table, field in named:
        place = table._tab.Offset(field)
        if place:
            plan.name_span("names", table._tab.Vector(place), table._tab.VectorLen(place))


def _name_parameters(plan: _FloorPlan, opened: Flatbuffer) -> None:
    for tensor in (tensor for graph in opened.model.subgraphs for tensor in graph.tensors or ()):
        if tensor.quantization is not None:
            for vector in (tensor.quantization.scale, tensor.quantization.min, tensor.quantization.max):
                plan.name("scales", vector)
            plan.name("zero points", tensor.quantization.zeroPoint)
        for level in tensor.sparsity.dimMetadata if tensor.sparsity is not None else ():
            for vector in (level.arraySegments, level.arrayIndices):
                plan.name("sparse indices", None if vector is None else vector.values)


def _name_buffers(plan: _FloorPlan, opened: Flatbuffer, weights: list[StoredWeights]) -> None:
    for tensor in (tensor for graph in opened.model.subgraphs for tensor in graph.tensors or ()):
        plan.name("other constants", opened.buffer(tensor))
    for metadata in opened.model.metadata or ():
        plan.name("metadata", opened.buffer_bytes(metadata.buffer))
    for name, operator in opened.operators:
        if name in READS_WEIGHTS:
            _name_bias(plan, opened, bias_input(name, operator))
    for tensor in weights:
        plan.name("weights", opened.buffer(opened.graph.tensors[tensor.index]))


def _name_bias(plan: _FloorPlan, opened: Flatbuffer, index: int | None) -> None:
    bias = None if index is None else constant_of(opened, index)
    if bias is not None:
        plan.name("biases", opened.buffer(opened.graph.tensors[bias]))
