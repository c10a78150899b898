"""Keras -> `.tflite`. Convert once per process: the converter keeps memory it has used."""

from collections.abc import Callable, Iterator
from typing import Any


def to_int8(model: Any, representative: Callable[[], Iterator[list[Any]]] | None) -> bytes:
    """Converts to full-integer int8, inputs and outputs included.

    Args:
        model: A plain model, or one with quantization ranges from quantization-aware training.
        representative: Yields `[1, ...]` float32 input batches that set the activation ranges; None where the model
            brings its ranges.

    Returns:
        The flatbuffer.
    """
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.inference_input_type = tf.int8
    converter.inference_output_type = tf.int8
    if representative is not None:
        converter.representative_dataset = representative
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    return bytes(converter.convert())


def to_float32(model: Any) -> bytes:
    """Converts without quantization: the file that compression is measured against."""
    import tensorflow as tf

    return bytes(tf.lite.TFLiteConverter.from_keras_model(model).convert())
