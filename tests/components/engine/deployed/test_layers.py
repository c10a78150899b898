"""Which layer's kernel a tensor of the deployed file is taken for."""

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.deployed.convert import to_float32, to_int8
from collabopt.components.engine.deployed.layers import dequantized, find_kernels, kernels_as_deployed
from collabopt.components.engine.deployed.weights import StoredWeights, read_weights

GAMMAS = np.array([-2, -0.5, 0, 0.25, 0.5, 1, 2, 4], np.float32)


@pytest.fixture(scope="module")
def model():
    """Every kind of layer with a kernel; the three of `body` have equal shapes."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, padding="same", use_bias=False, name="normalized")(image)
    x = layers.BatchNormalization(gamma_initializer=lambda shape, dtype=None: GAMMAS)(x)
    for number in range(3):
        x = layers.Conv2D(8, 3, padding="same", activation="relu", name=f"body_{number}")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    x = layers.Conv2D(8, 3, groups=4, padding="same", activation="relu", name="grouped")(x)
    x = layers.Conv2DTranspose(4, 3, padding="same", name="transposed")(x)
    x = layers.Dense(6, activation="relu", name="at_every_pixel")(x)
    x = layers.Conv1D(5, 3, activation="relu", name="along_time")(layers.Reshape((64, 6))(x))
    x = layers.Dense(7, activation="relu", name="at_every_time")(x)
    return tf_keras.Model(image, layers.Dense(3, name="output")(layers.GlobalAveragePooling1D()(x)))


@pytest.fixture(scope="module", params=["int8", "float32"])
def found(request, model, data):
    tflite = to_float32(model) if request.param == "float32" else to_int8(model, lambda: data.representative(8))
    return find_kernels(read_weights(tflite), kernels_as_deployed(model))


def test_every_kernel_is_found_once(found, model):
    assert sorted(deployed.layer for deployed in found) == sorted(compressible_kernels(model))


def test_a_tensor_is_its_kernel_times_the_factors(found):
    for deployed in found:
        expected = deployed.kernel * deployed.factors[:, np.newaxis]
        step = np.abs(expected).max(axis=1, keepdims=True) / 127
        assert (np.abs(dequantized(deployed.tensor) - expected) <= 0.6 * step + 1e-6).all(), deployed.layer


def test_factors_are_what_a_batch_normalization_multiplies_with(found):
    factors = {deployed.layer: deployed.factors for deployed in found}
    np.testing.assert_allclose(factors["normalized"], GAMMAS / np.sqrt(1.001), rtol=0.02)
    np.testing.assert_allclose(factors["body_1"], 1, rtol=0.02)


# --- by what a tensor is recognised ---


def tensor(kernel, name):
    return StoredWeights(
        index=0,
        name=name,
        op="CONV_2D",
        dtype="float32",
        values=np.asarray(kernel, np.float32),
        channel_axis=0,
        scales=np.zeros(0, np.float32),
        quantization_axis=None,
        zero_point=0,
        stored_bytes=0,
        sparse_encoded=False,
    )


@pytest.fixture
def kernels():
    random = np.random.default_rng(0)
    return {name: random.normal(size=(4, 9)).astype(np.float32) for name in ("first", "second")}


def layers_of(tensors, kernels):
    return [deployed.layer for deployed in find_kernels(tensors, kernels)]


@pytest.mark.parametrize("name", ["", "tfl.pseudo_qconst7", "model/bn/FusedBatchNormV3"])
def test_a_name_that_tells_nothing_does_not_matter(kernels, name):
    assert layers_of([tensor(kernels["second"], name), tensor(kernels["first"], name)], kernels) == ["second", "first"]


def test_lengths_and_signs_of_channels_do_not_matter(kernels):
    stretched = kernels["second"] * np.array([[-3], [-0.1], [0], [2]])
    (deployed,) = find_kernels([tensor(stretched, "")], kernels)
    assert deployed.layer == "second"
    np.testing.assert_allclose(deployed.factors, [-3, -0.1, 0, 2], rtol=1e-5)


def test_a_kernel_moved_by_training_is_still_recognised(kernels):
    moved = kernels["first"] + np.random.default_rng(1).normal(scale=0.5, size=(4, 9))
    assert layers_of([tensor(moved, "")], kernels) == ["first"]


def test_weights_of_another_network_are_not_recognised(kernels):
    assert layers_of([tensor(np.random.default_rng(2).normal(size=(4, 9)), "")], kernels) == []


def test_a_kernel_without_weights_is_known_by_its_name_alone(kernels):
    kernels["second"][:] = 0
    (deployed,) = find_kernels([tensor(kernels["second"], "model/quant_second/Conv2D")], kernels)
    assert deployed.layer == "second"
    assert not deployed.factors.any()
    assert layers_of([tensor(kernels["second"], "tfl.pseudo_qconst")], kernels) == []


def test_a_tensor_that_layers_of_equal_weights_share_is_every_ones(kernels):
    kernels["second"] = kernels["first"].copy()
    assert sorted(layers_of([tensor(kernels["first"], "model/first/Conv2D")], kernels)) == ["first", "second"]


def test_a_tensor_of_another_shape_is_nobodys(kernels):
    assert layers_of([tensor(kernels["first"][:, :8], "model/first/Conv2D")], kernels) == []
