"""Which operators of a `.tflite` compute on floats, and why."""

from typing import Any

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, refusing_damage
from collabopt.components.engine.deployed.weights import READS_WEIGHTS, constant_of

FLOAT_TYPES = ("float32", "float16", "bfloat16", "float64")

# Of LiteRT's kernels that take floats, those that take no int8 (tensorflow/lite/kernels). Conservative: of an operator
# that is not listed, only what the file shows is said.
_FLOAT_ONLY = frozenset(
    [
        *("ADD_N", "ATAN2", "CEIL", "COMPLEX_ABS", "CONV_3D", "CONV_3D_TRANSPOSE", "COS", "CUMSUM", "CUSTOM", "DIV"),
        *("FLOOR", "L2_POOL_2D", "LOCAL_RESPONSE_NORMALIZATION", "MULTINOMIAL", "NEG", "POW"),
        *("RANDOM_STANDARD_NORMAL", "RANDOM_UNIFORM", "RFFT2D", "ROUND", "SEGMENT_SUM", "SIGN", "SIN"),
        *("SQRT", "SQUARE"),
    ]
)


def float_operators(opened: Flatbuffer) -> list[tuple[str, Any]]:
    """Name and `OperatorT` of every operator with a float output, in order of execution."""
    with refusing_damage():
        return [entry for entry in opened.operators if _float_outputs(opened, entry[1])]


def float_reasons(opened: Flatbuffer) -> dict[str, str]:
    """Says of every operator with a float output why it has one.

    Args:
        opened: The file.

    Returns:
        `OP (name of its output tensor)` -> reason, as far as the file shows it.
    """
    with refusing_damage():
        any_quantized = any(_is_quantized(opened, tensor) for tensor in opened.graph.tensors)
        reasons = {}
        for name, operator in float_operators(opened):
            output = _float_outputs(opened, operator)[0]
            reasons[f"{name} ({opened.name(output)})"] = _reason(opened, name, operator, any_quantized)
        return reasons


def _float_outputs(opened: Flatbuffer, operator: Any) -> list[Any]:
    outputs = [opened.graph.tensors[index] for index in operator.outputs if index >= 0]
    return [tensor for tensor in outputs if opened.dtype(tensor) in FLOAT_TYPES]


def _is_quantized(opened: Flatbuffer, tensor: Any) -> bool:
    quantization = tensor.quantization
    has_scales = quantization is not None and quantization.scale is not None and len(quantization.scale) > 0
    return has_scales and opened.dtype(tensor) not in FLOAT_TYPES


def _reason(opened: Flatbuffer, name: str, operator: Any, any_quantized: bool) -> str:
    if name == "DENSIFY":
        return "unpacks a constant that is stored sparse and in float"
    if name == "DEQUANTIZE":
        return _reason_to_dequantize(opened, operator)
    if not any_quantized:
        return "nothing in this file is quantized"
    if name in _FLOAT_ONLY:
        return "there is no int8 kernel for it"
    if name in READS_WEIGHTS and _has_quantized_weights(opened, operator):
        return "its weights are quantized, but its output has no quantization range"
    return "its output has no quantization range"


def _reason_to_dequantize(opened: Flatbuffer, operator: Any) -> str:
    source = constant_of(opened, int(operator.inputs[0]))
    if source is not None:
        return f"unpacks a constant that is stored as {opened.dtype(opened.graph.tensors[source])}"
    output = int(operator.outputs[0])
    if output in opened.graph.outputs:
        return "the model's output is float"
    readers = dict.fromkeys(name for name, reader in opened.operators if output in reader.inputs)
    return f"hands on to {', '.join(readers)}, computed in float" if readers else "nothing reads it"


def _has_quantized_weights(opened: Flatbuffer, operator: Any) -> bool:
    weights = constant_of(opened, int(operator.inputs[1]))
    return weights is not None and _is_quantized(opened, opened.graph.tensors[weights])
