"""One palette per deployed tensor after post-training quantization, and nothing else changed."""

import numpy as np
import pytest
from ai_edge_litert.schema_py_generated import TensorType

from collabopt.components.engine.compression.kernels import channel_axis, compressible_kernels
from collabopt.components.engine.deployed.convert import to_int8
from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.deployed.flatbuffer import open_flatbuffer
from collabopt.components.engine.deployed.layers import find_kernels, kernels_as_deployed
from collabopt.components.engine.deployed.palette import restore_palettes
from collabopt.components.engine.deployed.weights import READS_WEIGHTS, read_weights
from tests.components.engine.compressed_kernels import LEVELS, of_few_values, without_largest_in_every_other_channel

LAYERS = ["normalized", "separate", "along_time", "transposed", "transposed_along_time", "grouped", "dense", "output"]


def compress(model, names):
    """Gives the kernels seven values each, of which one is zero; not every channel has the largest."""
    for number, name in enumerate(names):
        layer = model.get_layer(name)
        values = without_largest_in_every_other_channel(of_few_values(layer.kernel.numpy()), channel_axis(layer))
        layer.kernel.assign(values * (1 + number / 7))
        if layer.use_bias:
            layer.bias.assign(np.linspace(-0.2, 0.3, layer.bias.shape[0]))
    return model


def every_kind_of_layer():
    """Branches with a layer each whose kernel is stored in its own way; gammas differ by a factor of 16."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, use_bias=False, name="normalized")(image)
    x = layers.ReLU()(normalization(layers, np.linspace(0.25, 4, 8))(x))
    first = layers.GlobalAveragePooling2D()(x)
    x = layers.Conv2D(4, 3, name="separate", activation="relu")(image)
    x = layers.Conv2D(8, 3, groups=2, name="grouped", activation="relu")(x)
    second = layers.GlobalAveragePooling2D()(x)
    x = layers.Conv1D(8, 3, name="along_time", activation="relu")(layers.Reshape((8, 8))(image))
    third = layers.GlobalAveragePooling1D()(x)
    x = layers.Conv2DTranspose(4, 3, name="transposed", activation="relu")(image)
    fourth = layers.GlobalAveragePooling2D()(x)
    x = layers.Conv1DTranspose(4, 3, name="transposed_along_time", activation="relu")(layers.Reshape((8, 8))(image))
    fifth = layers.GlobalAveragePooling1D()(x)
    x = layers.Dense(16, activation="relu", name="dense")(layers.Concatenate()([first, second, third, fourth, fifth]))
    return compress(tf_keras.Model(image, layers.Dense(6, name="output")(x)), LAYERS)


def normalization(layers, gammas):
    return layers.BatchNormalization(gamma_initializer=lambda shape, dtype=None: np.asarray(gammas, np.float32))


def chain(*body):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    return tf_keras.Sequential([tf_keras.layers.Input((8, 8, 1)), *body])


@pytest.fixture(scope="module")
def layers():
    import tf_keras

    return tf_keras.layers


@pytest.fixture(scope="module")
def quantize(data):
    return lambda model: to_int8(model, lambda: data.representative(32))


@pytest.fixture(scope="module")
def model():
    return every_kind_of_layer()


@pytest.fixture(scope="module")
def kernels(model):
    return kernels_as_deployed(model)


@pytest.fixture(scope="module")
def split(model, quantize):
    """What the converter makes of it."""
    return quantize(model)


@pytest.fixture(scope="module")
def restored(split, kernels):
    return restore_palettes(split, kernels)


def tensors_by_layer(tflite, kernels):
    return {deployed.layer: deployed.tensor for deployed in find_kernels(read_weights(tflite), kernels)}


def distinct(tensor):
    return len(np.unique(tensor.values))


def output_step(tflite):
    """What the output's last bit stands for."""
    opened = open_flatbuffer(tflite)
    return float(opened.graph.tensors[opened.graph.outputs[0]].quantization.scale[0])


# --- what changes ---


def test_every_layer_of_the_net_is_tried(model, kernels):
    assert set(compressible_kernels(model)) == set(kernels) == set(LAYERS)


@pytest.mark.parametrize("layer", LAYERS)
def test_a_tensor_has_no_more_values_than_its_kernel(split, restored, kernels, layer):
    assert distinct(tensors_by_layer(split, kernels)[layer]) > len(LEVELS)
    assert distinct(tensors_by_layer(restored, kernels)[layer]) == len(np.unique(kernels[layer])) <= len(LEVELS)


@pytest.mark.parametrize("layer", LAYERS)
def test_zeros_stay_where_they_are(restored, kernels, layer):
    tensor = tensors_by_layer(restored, kernels)[layer]
    np.testing.assert_array_equal(tensor.channels == 0, kernels[layer] == 0)


@pytest.mark.parametrize("layer", LAYERS)
def test_integers_follow_the_kernel_in_every_channel(restored, kernels, layer):
    """The order of the weights is that of the file: a transposed kernel would have as few values in wrong places."""
    tensor, kernel = tensors_by_layer(restored, kernels)[layer], kernels[layer]
    np.testing.assert_array_equal(tensor.channels, np.rint(kernel / np.abs(kernel).max() * 127))


def test_the_scales_take_up_the_batch_normalization(restored, kernels, model):
    scales = tensors_by_layer(restored, kernels)["normalized"].scales
    expected = np.linspace(0.25, 4, 8) / np.sqrt(1 + model.layers[2].epsilon) * np.abs(kernels["normalized"]).max()
    np.testing.assert_allclose(scales * 127, expected, rtol=5e-3)


@pytest.mark.parametrize("which", ["split", "restored"])
def test_biases_count_in_units_of_input_scale_times_weight_scale(request, which):
    opened = open_flatbuffer(request.getfixturevalue(which))
    readers = [operator for name, operator in opened.operators if name in READS_WEIGHTS]
    assert len(readers) == len(LAYERS)
    for operator in readers:
        first, second, bias = (opened.graph.tensors[index] for index in operator.inputs[-3:])
        assert opened.dtype(bias) == "int32"
        np.testing.assert_allclose(
            bias.quantization.scale, first.quantization.scale * second.quantization.scale, rtol=1e-5
        )


def test_biases_keep_their_real_values(split, restored):
    before, after = open_flatbuffer(split), open_flatbuffer(restored)
    biases = [index for index, tensor in enumerate(before.graph.tensors) if before.dtype(tensor) == "int32"]
    changed = 0
    for index in biases:
        old, new = before.graph.tensors[index], after.graph.tensors[index]
        if old.quantization is None or old.quantization.scale is None:
            continue
        values = [
            opened.buffer(tensor).view(np.int32) * np.float64(tensor.quantization.scale)
            for opened, tensor in ((before, old), (after, new))
        ]
        step = np.maximum(old.quantization.scale, new.quantization.scale)
        assert (np.abs(values[0] - values[1]) <= step).all()
        changed += not np.array_equal(old.quantization.scale, new.quantization.scale)
    assert changed == len(LAYERS)


# --- what does not ---


def test_the_file_keeps_its_size(split, restored):
    assert len(restored) == len(split)


def test_activations_and_operators_stay(split, restored):
    before, after = open_flatbuffer(split), open_flatbuffer(restored)
    assert [name for name, _ in before.operators] == [name for name, _ in after.operators]
    for old, new in zip(before.graph.tensors, after.graph.tensors, strict=True):
        if not len(before.buffer(old)):
            np.testing.assert_array_equal(old.quantization.scale, new.quantization.scale)
            np.testing.assert_array_equal(old.quantization.zeroPoint, new.quantization.zeroPoint)


def test_predictions_stay_those_of_the_float_model(model, split, restored, data):
    """Within four steps of the output: it is four quantized layers deep, and each rounds to a step of its own.

    One scale rounds no kernel more coarsely than its largest weight over 127, so the restored file may be no worse.
    """
    inputs = data.inputs("calibration")
    expected = model.predict(inputs, verbose=0)
    tolerance = 4 * output_step(split)
    assert np.ptp(expected) > 20 * tolerance
    assert np.abs(predict(split, inputs) - expected).max() < tolerance
    assert np.abs(predict(restored, inputs) - expected).max() < tolerance


def test_a_layer_that_is_not_named_keeps_every_byte(split, kernels):
    named = {"normalized": kernels["normalized"]}
    before, after = open_flatbuffer(split), open_flatbuffer(restore_palettes(split, named))
    changed = [
        old.type
        for old, new in zip(before.graph.tensors, after.graph.tensors, strict=True)
        if not np.array_equal(before.buffer(old), after.buffer(new))
        or (old.quantization and not np.array_equal(old.quantization.scale, new.quantization.scale))
    ]
    assert sorted(changed) == sorted([TensorType.INT8, TensorType.INT32])
    assert restore_palettes(split, {}) == split


def test_a_palette_that_is_one_already_stays(restored, kernels):
    assert restore_palettes(restored, kernels) == restored


def test_a_tensor_with_one_scale_stays(layers, data):
    """Folding a BatchNormalization under one scale leaves more values than the kernel has, and no scale to hold it."""
    import tensorflow as tf

    normalized = normalization(layers, np.linspace(0.25, 4, 8))
    model = chain(layers.Flatten(), layers.Dense(8, name="dense"), normalized)
    kernels = kernels_as_deployed(compress(model, ["dense"]))
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: data.representative(4)
    converter._experimental_disable_per_channel_quantization_for_dense_layers = True
    tflite = converter.convert()
    (tensor,) = read_weights(tflite)
    assert len(tensor.scales) == 1 and distinct(tensor) > len(LEVELS)
    assert restore_palettes(tflite, kernels) == tflite


def test_weights_that_the_file_holds_once_for_two_layers_stay(layers, quantize):
    """Twice the weights are the same integers at another scale; writing the one would change the other."""
    options = {"padding": "same", "activation": "relu"}
    first, second = (layers.Conv2D(4, 3, name=name, **options) for name in ("first", "second"))
    model = compress(chain(layers.Conv2D(4, 3, name="before"), first, second), ["first", "second"])
    second.kernel.assign(first.kernel * 2)
    tflite, kernels = quantize(model), kernels_as_deployed(model)
    opened = open_flatbuffer(tflite)
    _, *equal = (opened.graph.tensors[tensor.index] for tensor in read_weights(tflite))
    assert len(equal) == 2 and len({tensor.buffer for tensor in equal}) == 1
    assert restore_palettes(tflite, {name: kernels[name] for name in ("first", "second")}) == tflite
    assert restore_palettes(tflite, {"first": kernels["first"]}) == tflite


# --- special cases ---


def test_a_layer_that_is_called_twice_has_two_biases(layers, quantize, data):
    import tf_keras

    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    twice = layers.Conv2D(8, 3, padding="same", activation="relu", name="twice")
    larger = layers.ZeroPadding2D()(image)
    paths = [layers.GlobalAveragePooling2D()(twice(x)) for x in (image, layers.AveragePooling2D(3)(larger))]
    model = compress(tf_keras.Model(image, layers.Concatenate()(paths)), ["twice"])
    kernels, tflite = kernels_as_deployed(model), quantize(model)
    restored = restore_palettes(tflite, kernels)
    assert {distinct(tensor) for tensor in read_weights(restored)} == {len(LEVELS)}
    inputs = data.inputs("calibration")
    assert np.abs(predict(restored, inputs) - model.predict(inputs, verbose=0)).max() < 4 * output_step(tflite)


def test_negative_gammas_turn_a_palette_round_but_not_the_predictions(layers, quantize, data):
    """Import gives no layer a negative gamma; where one is left, its channels hold the palette's negatives."""
    gammas = normalization(layers, np.linspace(-2, 2, 8))
    pooling = layers.GlobalAveragePooling2D()
    model = compress(chain(layers.Conv2D(8, 3, use_bias=False, name="conv"), gammas, layers.ReLU(), pooling), ["conv"])
    kernels, tflite = kernels_as_deployed(model), quantize(model)
    restored = restore_palettes(tflite, kernels)
    (tensor,) = read_weights(restored)
    assert len(LEVELS) < distinct(tensor) <= 2 * len(LEVELS) - 1
    inputs = data.inputs("calibration")
    assert np.abs(predict(restored, inputs) - model.predict(inputs, verbose=0)).max() < 4 * output_step(tflite)


def test_an_empty_channel_and_a_gamma_of_zero_stay_empty(layers, quantize, data):
    gammas = normalization(layers, np.array([0, 0.5, 1, 1.5, 2, 0, 1, 2]))
    conv = layers.Conv2D(8, 3, use_bias=False, name="conv")
    model = compress(chain(conv, gammas, layers.ReLU(), layers.GlobalAveragePooling2D()), ["conv"])
    conv.kernel.assign(conv.kernel.numpy() * (np.arange(8) != 3))
    kernels, tflite = kernels_as_deployed(model), quantize(model)
    restored = restore_palettes(tflite, kernels)
    (tensor,) = read_weights(restored)
    assert not tensor.channels[[0, 3, 5]].any()
    assert distinct(tensor) == len(LEVELS)
    assert np.isfinite(tensor.scales).all() and (tensor.scales > 0).all()
    inputs = data.inputs("calibration")
    assert np.abs(predict(restored, inputs) - model.predict(inputs, verbose=0)).max() < 4 * output_step(tflite)


def test_a_kernel_whose_input_channels_were_scaled_too_is_left_as_it_is(layers, quantize, data):
    """The converter pushes a BatchNormalization between two Dense layers forward, into the second one's inputs."""
    body = [
        *(layers.Flatten(), layers.Dense(12, use_bias=False, name="first")),
        *(normalization(layers, np.geomspace(0.1, 4, 12)), layers.Dense(16, activation="relu", name="second")),
        layers.Dense(6, name="last"),
    ]
    model = compress(chain(*body), ["first", "second", "last"])
    tflite, kernels = quantize(model), kernels_as_deployed(model)
    restored = restore_palettes(tflite, kernels)
    assert distinct(tensors_by_layer(restored, kernels)["second"]) > len(LEVELS)
    assert distinct(tensors_by_layer(restored, kernels)["last"]) <= len(LEVELS)
    inputs = data.inputs("test")
    expected = model.predict(inputs, verbose=0)
    assert np.abs(predict(restored, inputs) - expected).max() <= 6 * output_step(restored)
