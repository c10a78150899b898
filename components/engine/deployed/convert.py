"""Keras -> `.tflite`. Convert once per process: the converter keeps memory it has used."""

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from collabopt.components.engine.errors import CollaboptError


class ConversionRefused(CollaboptError):
    """TensorFlow Lite does not take a model."""


def to_int8(model: Any, representative: Callable[[], Iterator[list[Any]]] | None) -> bytes:
    """Converts to int8, inputs and outputs included; an operator without an int8 kernel stays in float.

    Args:
        model: A plain model, or one with quantization ranges from quantization-aware training.
        representative: Yields `[1, ...]` float32 input batches that set the activation ranges; None where the model
            brings its ranges.

    Returns:
        The flatbuffer.

    Raises:
        ConversionRefused: TensorFlow Lite has no counterpart of an operator, or for the ranges around it: input and
            output of a pooling, for example, share one scale.
    """
    import tensorflow as tf

    with _converter(model) as converter:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        converter.inference_input_type = tf.int8
        converter.inference_output_type = tf.int8
        converter.representative_dataset = representative
        return _convert(converter)


def to_float32(model: Any) -> bytes:
    """Converts without quantization: the file that compression is measured against.

    Raises:
        ConversionRefused: TensorFlow Lite has no counterpart of an operator.
    """
    with _converter(model) as converter:
        return _convert(converter)


def _convert(converter: Any) -> bytes:
    from tensorflow.lite.python.convert_phase import ConverterError

    try:
        return bytes(converter.convert())
    except ConverterError as error:
        raise ConversionRefused(
            f"TensorFlow Lite cannot express this model: {_operators_of(str(error))}",
            todo="replace the layers that these operators come from",
        ) from error


def _operators_of(message: str) -> str:
    """The operators that a converter's message of many pages is about."""
    named = sorted(set(re.findall(r"'(tf\.\w+)' op", message)))
    return f"it has no counterpart of {', '.join(named)}" if named else " ".join(message.split())[:300]


@contextmanager
def _converter(model: Any) -> Iterator[Any]:
    """A converter that sees one function of the model.

    `TFLiteConverter.from_keras_model` saves every layer with every way to call it, and traces each of them: for a
    quantized network of hundreds of layers that takes minutes.

    The batch size stays open, unless an operator has to know it: the file would compute it anew in every inference,
    with operators (SHAPE, GATHER, PACK) that microcontrollers and NPUs do not take. Then the file is for one sample.
    """
    import tensorflow as tf

    (name,) = model.input_names
    (output,) = model.output_names

    def traced(batch: int | None) -> Any:
        spec = tf.TensorSpec([batch, *model.input_shape[1:]], model.inputs[0].dtype, name=name)
        serve = tf.function(lambda inputs: {output: model(inputs, training=False)}, input_signature=[spec])
        return serve.get_concrete_function()

    function = traced(None)
    if any(operation.type == "Shape" for operation in function.graph.get_operations()):
        function = traced(1)
    module = tf.Module()
    module.weights = model.weights
    with tempfile.TemporaryDirectory() as directory:
        tf.saved_model.save(module, directory, signatures=function)
        yield tf.lite.TFLiteConverter.from_saved_model(directory)
