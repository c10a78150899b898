"""Normalizations that the converter would multiply into the input channels of the kernel behind them."""

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.deployed.contract import check_contract
from collabopt.components.engine.deployed.convert import to_float32, to_int8
from collabopt.components.engine.deployed.flatbuffer import open_flatbuffer
from collabopt.components.engine.deployed.layers import kernels_as_deployed
from collabopt.components.engine.deployed.normalization import keep_out_of_kernels
from collabopt.components.engine.deployed.palette import restore_palettes
from tests.components.engine.compressed_kernels import LEVELS, claims_on, of_few_values


def behind_an_activation(layers, x):
    return layers.BatchNormalization()(layers.Dense(16, activation="relu", name="before")(layers.Flatten()(x)))


def behind_a_dense_layer(layers, x):
    return layers.BatchNormalization()(layers.Dense(16, name="before")(layers.Flatten()(x)))


def behind_a_pooling(layers, x):
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(16, 3, activation="relu", name="before")(x))
    return layers.BatchNormalization()(x)


def of_the_inputs(layers, x):
    return layers.BatchNormalization(center=False)(layers.Flatten()(x))


def before_a_dropout(layers, x):
    return layers.Dropout(0.5)(layers.BatchNormalization(scale=False)(behind_an_activation(layers, x)))


def of_every_sample(layers, x):
    return layers.LayerNormalization()(layers.Dense(16, activation="relu", name="before")(layers.Flatten()(x)))


def of_every_row(layers, x):
    return layers.BatchNormalization()(layers.Dense(16, activation="relu", name="before")(layers.Reshape((8, 8))(x)))


PUSHED = [behind_an_activation, behind_a_dense_layer, behind_a_pooling, of_the_inputs, before_a_dropout]
PUSHED += [of_every_sample, of_every_row]


def folded_into_a_convolution(layers, x):
    x = layers.BatchNormalization()(layers.Conv2D(8, 3, name="before")(x))
    return layers.GlobalAveragePooling2D()(layers.ReLU()(x))


def by_row(layers, x):
    return layers.Flatten()(layers.BatchNormalization(axis=1)(layers.ReLU()(x)))


def net(body):
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Dense(16, activation="relu", name="dense")(body(layers, image))
    model = tf_keras.Model(image, layers.Dense(3, name="output")(x))
    random = np.random.default_rng(0)
    for name, kernel in compressible_kernels(model).items():
        layer = model.get_layer(name)
        layer.set_weights([of_few_values(kernel), random.uniform(-0.3, 0.3, layer.bias.shape)])
    for layer in model.layers:
        if "normalization" in layer.name:
            layer.set_weights([random.uniform(0.3, 2, weight.shape) for weight in layer.weights])
    return model


@pytest.fixture
def deploy(data):
    def quantize(model, kernels):
        return restore_palettes(to_int8(model, lambda: data.representative(8)), kernels)

    return quantize


@pytest.mark.parametrize("body", PUSHED, ids=lambda body: body.__name__)
def test_a_palette_is_split_by_input_channel_unless_the_normalization_is_kept_out(body, deploy):
    model = net(body)
    kernels, claims = kernels_as_deployed(model), claims_on(model, "sparse", "clustered")
    (broken,) = check_contract(deploy(model, kernels), claims, kernels).broken
    assert broken.layer == "dense"
    assert f"{len(LEVELS)} are allowed" in broken.what
    rewritten = keep_out_of_kernels(model, claims.clusters)
    assert check_contract(deploy(rewritten, kernels), claims, kernels).broken == []


@pytest.mark.parametrize("body", PUSHED, ids=lambda body: body.__name__)
def test_predictions_and_weights_stay(body, data):
    model, inputs = net(body), data.inputs("test")
    rewritten = keep_out_of_kernels(model, ["dense"])
    assert rewritten is not model
    np.testing.assert_allclose(rewritten.predict(inputs, verbose=0), model.predict(inputs, verbose=0), atol=1e-5)
    for old, new in zip(model.weights, rewritten.weights, strict=True):
        assert old.name == new.name
        np.testing.assert_array_equal(old, new)


@pytest.mark.parametrize(("body", "further"), [(behind_an_activation, ["MUL"]), (behind_a_dense_layer, [])])
def test_it_costs_one_multiplication_or_nothing(body, further):
    model = net(body)
    before, after = (operators(each) for each in (model, keep_out_of_kernels(model, ["dense"])))
    assert sorted(after) == sorted([*before, *further])


def operators(model):
    return [name for name, _ in open_flatbuffer(to_float32(model)).operators]


@pytest.mark.parametrize(
    ("body", "kernels"),
    [
        (behind_an_activation, ["before", "output"]),
        (folded_into_a_convolution, ["before", "dense", "output"]),
        (by_row, ["dense"]),
    ],
)
def test_a_model_in_which_nothing_would_be_split_stays_as_it_is(body, kernels):
    model = net(body)
    assert keep_out_of_kernels(model, kernels) is model
