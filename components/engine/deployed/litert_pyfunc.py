"""A `.tflite` file as an MLflow pyfunc model: MLflow stores this very file as the model's code ("models from code").

It is read wherever the model is loaded, so it needs nothing but mlflow, numpy and ai-edge-litert: no TensorFlow, no
collabopt, no pickle. Serves float32 and quantized models with one input and one output whose first axis is the batch.
"""

import threading

import mlflow
import numpy as np
from mlflow.pyfunc import PythonModel

ARTIFACT = "tflite"


class LiteRTModel(PythonModel):
    """Runs the `.tflite` artifact with LiteRT, floats in and floats out."""

    def load_context(self, context):
        """Prepares the interpreter for one sample at a time, as a device runs it."""
        from ai_edge_litert.interpreter import Interpreter, OpResolverType

        path = context.artifacts[ARTIFACT]
        try:
            self._interpreter = _for_one_sample(Interpreter(model_path=path))
        except RuntimeError:
            # XNNPACK refuses some legal files, for example one with a layer whose output is always zero.
            plain = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
            self._interpreter = _for_one_sample(Interpreter(model_path=path, experimental_op_resolver_type=plain))
        self._input = self._interpreter.get_input_details()[0]
        self._output = self._interpreter.get_output_details()[0]
        # An interpreter holds the tensors of one inference; a server calls from several threads.
        self._lock = threading.Lock()

    def predict(self, context, model_input: np.ndarray, params=None) -> np.ndarray:
        """Predicts a batch.

        Args:
            context: Unused.
            model_input: float32 `[n, ...]`, as the fp32 model takes it.
            params: Unused.

        Returns:
            float32 `[n, ...]`, dequantized where the model's output is quantized.
        """
        samples = _quantized(np.asarray(model_input, dtype=np.float32), self._input)
        outputs = np.empty((len(samples), *self._output["shape"][1:]), dtype=self._output["dtype"])
        with self._lock:
            for row, sample in enumerate(samples):
                self._interpreter.set_tensor(self._input["index"], sample[np.newaxis])
                self._interpreter.invoke()
                outputs[row] = self._interpreter.get_tensor(self._output["index"])[0]
        return _dequantized(outputs, self._output)


def _for_one_sample(interpreter):
    details = interpreter.get_input_details()[0]
    one_sample = [1, *details["shape"][1:]]
    if list(details["shape"]) != one_sample:
        interpreter.resize_tensor_input(details["index"], one_sample)
    interpreter.allocate_tensors()
    return interpreter


def _quantized(values, details):
    dtype = details["dtype"]
    if not np.issubdtype(dtype, np.integer):
        return values.astype(dtype)
    scale, zero_point = details["quantization"]
    limits = np.iinfo(dtype)
    return np.clip(np.round(values / np.float32(scale)) + zero_point, limits.min, limits.max).astype(dtype)


def _dequantized(values, details):
    if not np.issubdtype(details["dtype"], np.integer):
        return values.astype(np.float32)
    scale, zero_point = details["quantization"]
    return (values.astype(np.float32) - zero_point) * np.float32(scale)


mlflow.models.set_model(LiteRTModel())
