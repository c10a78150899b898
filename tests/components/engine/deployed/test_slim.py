"""Files lose what tells nobody anything, and compute what they computed."""

import itertools

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.deployed.convert import to_float32, to_int8
from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.deployed.flatbuffer import open_flatbuffer
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.deployed.packing import pack
from collabopt.components.engine.deployed.slim import slim
from collabopt.components.engine.deployed.weights import READS_WEIGHTS, bias_input, read_weights
from collabopt.components.engine.errors import CollaboptError

LAYERS = ["conv", "depthwise", "transposed", "twice", "twice", "output"]


@pytest.fixture(scope="module")
def model():
    """Poolings and reshapes, whose input and output share a scale, at both ends and between; a layer called twice."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="conv")(layers.MaxPooling2D(1)(image))
    x = layers.ReLU()(layers.BatchNormalization(gamma_initializer="random_uniform", beta_initializer="ones")(x))
    x = layers.DepthwiseConv2D(3, name="depthwise", bias_initializer="random_normal")(layers.AveragePooling2D(2)(x))
    x = layers.Conv2DTranspose(8, 3, name="transposed", bias_initializer="random_normal")(x)
    twice = layers.Conv2D(8, 3, padding="same", activation="relu", name="twice", bias_initializer="random_normal")
    x = layers.Concatenate()([twice(x), twice(layers.ReLU(max_value=0.1)(x))])
    x = layers.Dense(6, name="output", bias_initializer="random_normal")(layers.Flatten()(x))
    return tf_keras.Model(image, layers.Reshape((6,))(x))


@pytest.fixture(scope="module")
def converted(model, data):
    return to_int8(model, lambda: data.representative(32))


@pytest.fixture(scope="module")
def slimmed(converted):
    return slim(converted)


def scales(tensor):
    found = None if tensor.quantization is None else tensor.quantization.scale
    return np.asarray(() if found is None else found, np.float32)


def interface(opened):
    return [opened.graph.tensors[index] for index in (*opened.graph.inputs, *opened.graph.outputs)]


def real_biases(tflite):
    """The bias of every operator with weights, in real units."""
    opened = open_flatbuffer(tflite)
    found = [bias_input(name, operator) for name, operator in opened.operators if name in READS_WEIGHTS]
    biases = [opened.graph.tensors[index] for index in found]
    return [opened.buffer(bias).view(np.int32) * np.float64(scales(bias)) for bias in biases]


def test_all_kinds_of_layers_are_there(model, converted):
    assert {*compressible_kernels(model), "depthwise"} == set(LAYERS)
    assert len(real_biases(converted)) == len(LAYERS)


def test_weights_keep_every_integer(converted, slimmed):
    for before, after in zip(read_weights(converted), read_weights(slimmed), strict=True):
        np.testing.assert_array_equal(before.values, after.values)
        assert (before.quantization_axis, before.zero_point) == (after.quantization_axis, after.zero_point)


def test_scales_are_bfloat16_and_hardly_differ(converted, slimmed):
    before, after = open_flatbuffer(converted), open_flatbuffer(slimmed)
    kept = {float(scale) for tensor in interface(before) for scale in scales(tensor)}
    rounded = 0
    for old, new in zip(before.graph.tensors, after.graph.tensors, strict=True):
        if before.dtype(old) == "int8":
            np.testing.assert_allclose(scales(new), scales(old), rtol=2**-8)
            changed = scales(new)[~np.isin(scales(new), list(kept))]
            assert not (changed.view(np.uint32) & 0xFFFF).any()
            rounded += len(changed)
    assert rounded > 40


def test_scales_of_inputs_and_outputs_stay(converted, slimmed):
    before, after = (interface(open_flatbuffer(tflite)) for tflite in (converted, slimmed))
    assert any((scales(tensor).view(np.uint32) & 0xFFFF).any() for tensor in before)
    for old, new in zip(before, after, strict=True):
        np.testing.assert_array_equal(scales(old), scales(new))


def test_biases_count_in_units_of_the_new_scales_and_keep_their_real_values(converted, slimmed):
    opened = open_flatbuffer(slimmed)
    for name, operator in opened.operators:
        if name in READS_WEIGHTS:
            first, second, bias = (opened.graph.tensors[index] for index in operator.inputs[-3:])
            if name == "TRANSPOSE_CONV":
                first, second = second, first
            np.testing.assert_array_equal(scales(bias), scales(first)[0] * scales(second))
    for before, after in zip(real_biases(converted), real_biases(slimmed), strict=True):
        assert np.abs(before).max() > 0
        np.testing.assert_allclose(after, before, atol=2e-5)


def test_predictions_are_as_near_to_the_float_model_as_before(model, converted, slimmed, data):
    inputs = data.inputs("test")
    expected = model.predict(inputs, verbose=0)
    before, after = (float(np.abs(predict(tflite, inputs) - expected).mean()) for tflite in (converted, slimmed))
    assert np.ptp(expected) > 20 * before
    assert after < 1.25 * before


def test_it_packs_smaller_and_says_where_it_was(converted, slimmed):
    assert len(pack(slimmed).content) < 0.9 * len(pack(converted).content)
    before, after = inspect_tflite(converted).contents_deflated, inspect_tflite(slimmed).contents_deflated
    assert after["scales"] < 0.7 * before["scales"]
    assert after["names"] < 0.6 * before["names"]
    assert after["metadata"] == 0
    assert after["weights"] == before["weights"]


def test_names_are_those_of_layers(slimmed):
    opened = open_flatbuffer(slimmed)
    layers = [tensor.layer for tensor in inspect_tflite(slimmed).weights]
    assert layers == list(dict.fromkeys(LAYERS))
    operators = [operator for name, operator in opened.operators if name in READS_WEIGHTS]
    written = [opened.name(opened.graph.tensors[operator.outputs[0]]) for operator in operators]
    assert written == LAYERS
    assert all(";" not in opened.name(tensor) for tensor in opened.graph.tensors)


def test_signatures_lead_to_the_same_tensors(slimmed, model):
    from ai_edge_litert.interpreter import Interpreter

    (signature,) = Interpreter(model_content=slimmed).get_signature_list().values()
    assert signature["inputs"] == model.input_names
    assert len(signature["outputs"]) == 1


def test_equal_contents_share_a_buffer_and_what_is_computed_has_none(slimmed):
    opened = open_flatbuffer(slimmed)
    contents = [opened.buffer_bytes(number).tobytes() for number in range(len(opened.model.buffers))]
    assert contents[0] == b"" and len(set(contents)) == len(contents)
    assert {tensor.buffer for tensor in opened.graph.tensors} | {0} == set(range(len(contents)))


def test_biases_that_shared_a_buffer_may_differ(data):
    """Two layers whose biases happen to be equal integers, of scales that are rounded differently."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    branches = [layers.Conv2D(4, 3, name=name, bias_initializer="random_normal") for name in ("first", "second")]
    outputs = [branch(image) for branch in branches]
    factor = 1 + 2**-8 + 2**-10
    branches[1].set_weights([weights * factor for weights in branches[0].get_weights()])
    model = tf_keras.Model(image, layers.Flatten()(layers.Add()(outputs)))
    converted = to_int8(model, lambda: data.representative(8))
    opened = open_flatbuffer(converted)
    found = [bias_input(name, operator) for name, operator in opened.operators if name in READS_WEIGHTS]
    assert len({opened.graph.tensors[index].buffer for index in found}) == 1
    first, second = real_biases(slim(converted))
    np.testing.assert_allclose(second, first * factor, rtol=1e-3, atol=2e-5)


def test_twice_is_once(slimmed):
    assert slim(slimmed) == slimmed


def test_a_float_file_loses_names_and_notes_alone(model, data):
    plain = to_float32(model)
    small = slim(plain)
    assert len(small) < len(plain)
    for before, after in zip(read_weights(plain), read_weights(small), strict=True):
        np.testing.assert_array_equal(before.values, after.values)
    inputs = data.inputs("calibration")
    np.testing.assert_array_equal(predict(small, inputs), predict(plain, inputs))


def test_damage_is_refused_and_nothing_else_raised(converted):
    with pytest.raises(CollaboptError, match="not a TFLite model"):
        slim(b"something else")
    for cut in itertools.chain(range(8, 200, 24), range(200, len(converted), 1500)):
        with pytest.raises(CollaboptError):
            slim(converted[:cut])
