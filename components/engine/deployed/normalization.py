"""Keeps normalizations out of the input channels of the kernel behind them.

Where a Dense layer reads a normalization that no layer before it takes in, the converter multiplies its factors into
the input channels of the Dense kernel (`FuseMulAndFullyConnected` in TensorFlow Lite's `optimize_pass.cc`). That splits
a palette by input channel, which no scale can hold: scales run along output channels. The converter does so with a
vector of factors only. Written as a matrix of one row they stay an operator of their own, or become part of the output
channels of a Dense layer before them.
"""

from collections.abc import Collection
from typing import Any

import tensorflow as tf
import tf_keras

from collabopt.components.engine.models.graph import Call, Graph, TensorRef, read_tf_keras

# Layers that are not there in a deployed model, or leave its channels where they are.
_TRANSPARENT = (
    *("ActivityRegularization", "AlphaDropout", "Dropout", "Flatten", "GaussianDropout", "GaussianNoise", "Reshape"),
    *("SpatialDropout1D", "SpatialDropout2D"),
)


def keep_out_of_kernels(model: Any, kernels: Collection[str]) -> Any:
    """Rewrites a model for conversion, so that these kernels are not multiplied by input channel.

    Args:
        model: A flat tf_keras model.
        kernels: Names of layers.

    Returns:
        The model itself where none of its normalizations is in question, else a copy with the same weights and
        predictions, for inference only.
    """
    graph = read_tf_keras(model)
    readers = [call for call in graph.calls if call.name in kernels and type(call.layer).__name__ == "Dense"]
    held = {name for call in readers if (name := _normalization_before(call, graph))}
    if not held:
        return model

    def copy(layer: Any) -> Any:
        kind = _HELD[type(layer).__name__] if layer.name in held else type(layer)
        return kind.from_config(layer.get_config())

    rewritten = tf_keras.models.clone_model(model, clone_function=copy)
    rewritten.set_weights(model.get_weights())
    return rewritten


def _normalization_before(call: Call, graph: Graph) -> str:
    """Name of the normalization that a layer reads; "" where it reads none."""
    source = call.args[0]
    while isinstance(source, TensorRef) and source.call >= 0:
        call = graph.calls[source.call]
        kind = type(call.layer).__name__
        if kind in _HELD and list(call.layer.axis) == [len(call.layer.get_input_shape_at(0)) - 1]:
            return call.name
        if kind not in _TRANSPARENT:
            break
        source = call.args[0]
    return ""


class _HeldBatchNormalization(tf_keras.layers.BatchNormalization):
    def call(self, inputs: Any, training: Any = None, mask: Any = None) -> Any:
        factors = tf.math.rsqrt(self.moving_variance + self.epsilon)
        if self.scale:
            factors *= self.gamma
        offsets = -self.moving_mean * factors
        return _scaled(inputs, factors, offsets + self.beta if self.center else offsets)


class _HeldLayerNormalization(tf_keras.layers.LayerNormalization):
    def call(self, inputs: Any) -> Any:
        mean, variance = tf.nn.moments(inputs, [-1], keepdims=True)
        normalized = (inputs - mean) * tf.math.rsqrt(variance + self.epsilon)
        return _scaled(normalized, self.gamma if self.scale else tf.ones(1), self.beta if self.center else tf.zeros(1))


_HELD: dict[str, Any] = {"BatchNormalization": _HeldBatchNormalization, "LayerNormalization": _HeldLayerNormalization}


def _scaled(inputs: Any, factors: Any, offsets: Any) -> Any:
    row = tf.reshape(factors, [1] * (len(inputs.shape) - 1) + [-1])
    return inputs * row + offsets
