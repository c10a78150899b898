"""From a Keras model to bytes, and what is read back from them."""

import gzip

import numpy as np
import pytest

from collabopt.components.engine.deployed.convert import to_float32, to_int8
from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.errors import CollaboptError


@pytest.fixture(scope="module")
def model():
    """Conv, depthwise and Dense; half of the Dense kernel zero, three values in the convolution."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(1)
    inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(4, 3, activation="relu", name="conv")(inputs)
    x = layers.DepthwiseConv2D(3)(x)
    model = tf_keras.Model(inputs, layers.Dense(6, name="dense")(layers.Flatten()(x)))
    dense = model.get_layer("dense")
    kernel, bias = dense.get_weights()
    kernel[::2] = 0
    dense.set_weights([kernel, bias])
    conv = model.get_layer("conv")
    kernel, bias = conv.get_weights()
    conv.set_weights([np.sign(np.round(kernel, 1)) * 0.25, bias + 1])
    return model


@pytest.fixture(scope="module")
def inputs():
    return np.random.default_rng(2).uniform(0, 1, (40, 8, 8, 1)).astype(np.float32)


@pytest.fixture(scope="module")
def int8(model, inputs):
    return to_int8(model, lambda: ([sample[np.newaxis]] for sample in inputs))


def test_quantized_file_is_int8_throughout(int8):
    deployed = inspect_tflite(int8)
    assert (deployed.input_dtype, deployed.output_dtype) == ("int8", "int8")
    assert deployed.float_operators == []
    assert {tensor.dtype for tensor in deployed.weights} == {"int8"}
    assert {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1}.items() <= deployed.operators.items()


def test_weights_are_read_from_the_buffers(int8):
    conv, depthwise, dense = inspect_tflite(int8).weights
    assert (conv.op, conv.shape, conv.channel_axis) == ("CONV_2D", [4, 3, 3, 1], 0)
    assert conv.max_distinct_values_per_channel <= 3
    assert (depthwise.shape, depthwise.channel_axis) == ([1, 3, 3, 4], 3)
    assert dense.shape == [6, 64]
    assert dense.zero_fraction == pytest.approx(0.5, abs=0.02)
    assert dense.distinct_values > dense.max_distinct_values_per_channel > 8


def test_sizes_are_those_of_the_file(int8):
    deployed = inspect_tflite(int8)
    assert deployed.tflite_bytes == len(int8)
    assert deployed.gzip_bytes == len(gzip.compress(int8, 9, mtime=0))
    assert deployed.gzip_bytes < deployed.zip_bytes < deployed.tflite_bytes


def test_float_operators_are_listed(model):
    deployed = inspect_tflite(to_float32(model))
    assert {"CONV_2D", "FULLY_CONNECTED"} <= set(deployed.float_operators)
    assert deployed.input_dtype == "float32"


def test_litert_agrees_with_keras(model, inputs, int8):
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(predict(to_float32(model), inputs), expected, atol=1e-5)
    step = np.ptp(expected) / 255
    assert np.abs(predict(int8, inputs) - expected).max() < 6 * step


def test_prediction_does_not_depend_on_how_inputs_are_batched(int8, inputs):
    many = np.concatenate([inputs] * 8)[:300]
    whole = predict(int8, many)
    assert whole.shape == (300, 6)
    np.testing.assert_array_equal(whole, np.concatenate([predict(int8, sample[np.newaxis]) for sample in many]))


def test_a_file_that_xnnpack_refuses_is_run_all_the_same(model, inputs, capfd):
    """XNNPACK does not take a net whose first activation never fires, so that all that follows is zero."""
    import tf_keras

    dead = tf_keras.models.clone_model(model)
    dead.set_weights(model.get_weights())
    kernel, bias = dead.get_layer("conv").get_weights()
    dead.get_layer("conv").set_weights([-np.abs(kernel), np.zeros_like(bias)])
    outputs = predict(to_int8(dead, lambda: ([sample[np.newaxis]] for sample in inputs)), inputs)
    assert "LiteRT's own kernels run it instead" in capfd.readouterr().out
    np.testing.assert_allclose(outputs, np.zeros((len(inputs), 6)), atol=1e-6)


def test_bytes_that_are_no_model_are_refused():
    with pytest.raises(CollaboptError, match="not a TFLite model"):
        inspect_tflite(b"PK\x03\x04 something else")


def test_a_model_that_tensorflow_lite_cannot_express_is_refused():
    import tensorflow as tf
    import tf_keras

    image = tf_keras.layers.Input((8, 8))
    with pytest.raises(CollaboptError, match=r"no counterpart of tf\.Betainc") as refusal:
        to_float32(tf_keras.Model(image, tf.math.betainc(image, image, image)))
    assert "replace the layers" in refusal.value.todo


def transposed(layers, x):
    return layers.Conv2DTranspose(4, 3, strides=2, name="transposed")(x)


def at_every_row(layers, x):
    return layers.Dense(5, activation="relu")(layers.Reshape((8, 8))(x))


def normalized_in_groups(layers, x):
    """The calibration of a file with an open batch size fails in BROADCAST_TO."""
    return layers.GroupNormalization(2)(layers.Conv2D(4, 3, bias_initializer="ones")(x))


@pytest.mark.parametrize("body", [transposed, at_every_row, normalized_in_groups], ids=lambda body: body.__name__)
def test_no_file_computes_its_shapes_when_it_runs(body, inputs):
    """NPUs do not take that, and microcontrollers not all of it; the file is then for one sample."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    model = tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(body(layers, image))))
    tflite = to_int8(model, lambda: ([sample[np.newaxis]] for sample in inputs))
    assert not {"SHAPE", "GATHER", "PACK", "BROADCAST_TO", "REDUCE_PROD"} & inspect_tflite(tflite).operators.keys()
    expected = model.predict(inputs, verbose=0)
    assert np.abs(predict(tflite, inputs) - expected).max() < 0.1 * np.ptp(expected)
