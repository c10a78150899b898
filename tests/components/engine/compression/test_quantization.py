"""Which models quantization-aware training takes, and what of their kernels is deployed."""

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.compression.quantization import quantize_aware
from collabopt.components.engine.deployed.convert import to_int8
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import Claims
from tests.components.engine.compressed_kernels import LEVELS, claims_on, half_zero, of_few_values


@pytest.mark.parametrize("claimed", [(), ("sparse", "clustered")], ids="+".join)
def test_zeros_and_palettes_reach_the_deployed_file_only_if_claimed(net, fit, claimed):
    for name, kernel in compressible_kernels(net).items():
        net.get_layer(name).kernel.assign(half_zero(of_few_values(kernel), kernel))
    quantized = quantize_aware(net, "leaf", claims_on(net, *claimed), fit)
    deployed = inspect_tflite(to_int8(quantized, None))
    assert (deployed.float_operators, deployed.float_weights) == ([], [])
    weights = [tensor for tensor in deployed.weights if tensor.op != "DEPTHWISE_CONV_2D"]
    assert len(weights) == 3
    for tensor in weights:
        assert (tensor.zero_fraction >= 0.48) == bool(claimed), tensor
        assert (tensor.distinct_values <= len(LEVELS)) == bool(claimed), tensor


def multiplied(layers, x):
    return layers.Multiply()([layers.Conv2D(2, 3)(x), layers.Conv2D(2, 3, activation="sigmoid")(x)])


def hard_swish_of_operators(layers, x):
    import tensorflow as tf

    x = layers.Conv2D(2, 3)(x)
    return x * tf.nn.relu6(x + 3) / 6


def normalized_behind_an_activation(layers, x):
    return layers.BatchNormalization()(layers.Conv2D(2, 3, activation="relu")(x))


def normalized_behind_a_pooling(layers, x):
    return layers.BatchNormalization()(layers.MaxPooling2D()(layers.Conv2D(2, 3)(x)))


def normalized_in_one_of_two_paths(layers, x):
    x = layers.Conv2D(2, 3)(x)
    return layers.Add()([layers.BatchNormalization()(x), x])


def normalized_twice(layers, x):
    return layers.BatchNormalization()(layers.BatchNormalization()(layers.Conv2D(2, 3)(x)))


def normalized_inputs(layers, x):
    return layers.Conv2D(2, 3)(layers.BatchNormalization()(layers.Rescaling(2.0)(x)))


def along_time(layers, x):
    return layers.MaxPooling1D()(layers.Conv1D(2, 3)(layers.Reshape((8, 8))(x)))


def recent_activations(layers, x):
    return layers.PReLU()(layers.ELU()(layers.Conv2D(2, 3, activation="elu")(x)))


@pytest.mark.parametrize(
    "body",
    [
        *(multiplied, hard_swish_of_operators, normalized_behind_an_activation, normalized_behind_a_pooling),
        *(normalized_in_one_of_two_paths, normalized_twice, normalized_inputs, along_time, recent_activations),
    ],
    ids=lambda body: body.__name__,
)
def test_layers_that_tfmot_cannot_quantize_are_trained_in_float(body, data):
    import tf_keras

    layers = tf_keras.layers
    image = layers.Input((8, 8, 1))
    model = tf_keras.Model(image, layers.Dense(3, name="dense")(layers.Flatten()(body(layers, image))))

    def train(model, _):
        model.compile(tf_keras.optimizers.SGD(0.01), "mse", run_eagerly=True)
        model.train_on_batch(data.inputs("train", 8), np.zeros((8, 3)))

    quantized = quantize_aware(model, "leaf", Claims(), train)
    assert "quant_dense" in [layer.name for layer in quantized.layers]


def test_a_model_that_cannot_be_taken_apart_is_refused():
    import tf_keras

    class Subclassed(tf_keras.Model):
        def call(self, inputs):
            return inputs

    with pytest.raises(CollaboptError, match="stage 'pqat'"):
        quantize_aware(Subclassed(), "pqat", Claims(), lambda *_: None)
