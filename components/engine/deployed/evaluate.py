"""Runs a `.tflite` with LiteRT, the runtime of the devices, on real-valued batches."""

from typing import Any

import numpy as np

_BATCH = 256


def predict(tflite: bytes, inputs: np.ndarray) -> np.ndarray:
    """Runs a deployed model, with XNNPACK where it takes the model, else with LiteRT's own kernels.

    XNNPACK refuses some legal files, for example one with a layer whose output is always zero.

    Args:
        tflite: The flatbuffer.
        inputs: `[n, ...]` float32, as the Keras model takes them; quantized with the file's own scale.

    Returns:
        `[n, ...]` float32 outputs, dequantized.
    """
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    try:
        return _run(Interpreter(model_content=tflite, num_threads=1), inputs)
    except RuntimeError as error:
        print(f"XNNPACK does not take this model ({str(error).strip()}); LiteRT's own kernels run it instead")
    plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    return _run(Interpreter(model_content=tflite, num_threads=1, experimental_op_resolver_type=plain), inputs)


def _run(interpreter: Any, inputs: np.ndarray) -> np.ndarray:
    source = interpreter.get_input_details()[0]
    sink = interpreter.get_output_details()[0]
    step = min(_BATCH, max(1, len(inputs))) if _takes_batches(source) else 1
    allocated = 0
    outputs = []
    for start in range(0, len(inputs), step):
        batch = _quantized(inputs[start : start + step], source)
        if len(batch) != allocated:
            interpreter.resize_tensor_input(source["index"], batch.shape)
            interpreter.allocate_tensors()
            allocated = len(batch)
        interpreter.set_tensor(source["index"], batch)
        interpreter.invoke()
        outputs.append(_dequantized(interpreter.get_tensor(sink["index"]), sink))
    return np.concatenate(outputs)


def _takes_batches(source: dict) -> bool:
    return len(source["shape_signature"]) > 0 and source["shape_signature"][0] == -1


def _quantized(batch: np.ndarray, detail: dict) -> np.ndarray:
    if not np.issubdtype(detail["dtype"], np.integer):
        return batch.astype(detail["dtype"])
    scale, zero_point = detail["quantization"]
    limits = np.iinfo(detail["dtype"])
    return np.clip(np.round(batch / scale) + zero_point, limits.min, limits.max).astype(detail["dtype"])


def _dequantized(values: np.ndarray, detail: dict) -> np.ndarray:
    if not np.issubdtype(detail["dtype"], np.integer):
        return values.astype(np.float32)
    scale, zero_point = detail["quantization"]
    return ((values.astype(np.float32) - zero_point) * scale).astype(np.float32)
