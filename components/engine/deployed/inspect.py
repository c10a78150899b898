"""Reads what a `.tflite` really holds: sizes, operators, and the values in its weight buffers."""

import gzip
import hashlib
import io
import zipfile
from collections import Counter
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import TFLITE_FILE, DeployedModel, DeployedTensor

# Operator -> axis of the output channels in its weights, as the TFLite schema lays them out.
_WEIGHT_CHANNEL_AXIS = {"CONV_2D": 0, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 0, "TRANSPOSE_CONV": 0}
# Operator -> position of its weights among its inputs.
_WEIGHT_INPUT = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
_STORED_AS = {"INT8": np.int8, "UINT8": np.uint8, "FLOAT32": np.float32, "FLOAT16": np.float16, "INT16": np.int16}
_FLOAT_TYPES = ("FLOAT32", "FLOAT16")


def inspect_tflite(tflite: bytes) -> DeployedModel:
    """Inspects a flatbuffer.

    Raises:
        CollaboptError: The bytes are not a TFLite model.
    """
    from ai_edge_litert import schema_py_generated as schema

    if tflite[4:8] != b"TFL3":
        raise CollaboptError("these bytes are not a TFLite model", todo="pass a .tflite file")
    model = schema.ModelT.InitFromPackedBuf(bytearray(tflite), 0)
    operator_names = _names(schema.BuiltinOperator)
    type_names = _names(schema.TensorType)
    graph = model.subgraphs[0]
    operators = [operator_names[_code(model.operatorCodes[operator.opcodeIndex])] for operator in graph.operators]
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TFLITE_FILE, tflite)
    return DeployedModel(
        sha256=hashlib.sha256(tflite).hexdigest(),
        tflite_bytes=len(tflite),
        gzip_bytes=len(gzip.compress(tflite, compresslevel=9, mtime=0)),
        zip_bytes=len(packed.getvalue()),
        input_dtype=type_names[graph.tensors[graph.inputs[0]].type].lower(),
        output_dtype=type_names[graph.tensors[graph.outputs[0]].type].lower(),
        operators=dict(sorted(Counter(operators).items())),
        float_operators=[
            name
            for name, operator in zip(operators, graph.operators, strict=True)
            if any(type_names[graph.tensors[i].type] in _FLOAT_TYPES for i in operator.outputs if i >= 0)
        ],
        weights=_weights(model, graph, operators, type_names),
    )


def _weights(model: Any, graph: Any, operators: list[str], type_names: dict[int, str]) -> list[DeployedTensor]:
    found: dict[int, DeployedTensor] = {}
    for name, operator in zip(operators, graph.operators, strict=True):
        if name not in _WEIGHT_INPUT:
            continue
        index = operator.inputs[_WEIGHT_INPUT[name]]
        tensor = graph.tensors[index]
        buffer = model.buffers[tensor.buffer].data
        if index in found or buffer is None:
            continue
        dtype = type_names[tensor.type]
        values = np.frombuffer(np.asarray(buffer, dtype=np.uint8).tobytes(), _STORED_AS[dtype]).reshape(tensor.shape)
        found[index] = _describe(tensor, name, dtype.lower(), values)
    return list(found.values())


def _describe(tensor: Any, operator: str, dtype: str, values: np.ndarray) -> DeployedTensor:
    axis = _WEIGHT_CHANNEL_AXIS[operator]
    channels = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    zero_points = tensor.quantization.zeroPoint if tensor.quantization is not None else None
    zero = 0 if zero_points is None or len(zero_points) == 0 else int(zero_points[0])
    return DeployedTensor(
        name=tensor.name.decode(),
        op=operator,
        dtype=dtype,
        shape=[int(size) for size in tensor.shape],
        zero_fraction=float(np.mean(values == zero)),
        distinct_values=len(np.unique(values)),
        max_distinct_values_per_channel=max(len(np.unique(channel)) for channel in channels),
        channel_axis=axis,
    )


def _code(operator_code: Any) -> int:
    """The schema keeps codes below 127 in a deprecated field for old readers."""
    return max(operator_code.builtinCode, operator_code.deprecatedBuiltinCode)


def _names(enumeration: type) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}
