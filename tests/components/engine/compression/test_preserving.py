"""What training keeps of a kernel, layer by layer. What of it reaches the deployed file is tested there."""

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import KERNEL_ATTRIBUTES, compressible_kernels
from collabopt.components.engine.compression.quantization import quantize_aware, trained_weights
from collabopt.components.engine.models.canonical import canonical_form
from collabopt.components.engine.records import Claims
from tests.components.engine.compressed_kernels import claims_on, half_zero, of_few_values


def convolution(layers, x):
    return layers.Conv2D(8, 3, activation="relu", name="kernel")(x)


def separable(layers, x):
    """Import splits it into a depthwise and a pointwise convolution, of which the latter is kept."""
    return layers.SeparableConv2D(8, 3, activation="relu", name="kernel")(x)


def transposed(layers, x):
    """Output channels before input channels, and one scale for all of them."""
    return layers.Conv2DTranspose(8, 3, activation="relu", name="kernel")(x)


def along_time(layers, x):
    """TFMOT does not quantize it."""
    return layers.Conv1D(8, 3, activation="relu", name="kernel")(layers.Reshape((8, 8))(x))


def transposed_along_time(layers, x):
    """Neither that."""
    return layers.Conv1DTranspose(8, 3, activation="relu", name="kernel")(layers.Reshape((8, 8))(x))


def unknown_activation(layers, x):
    """TFMOT quantizes the layer, but not with this activation function."""
    return layers.Conv2D(8, 3, activation="elu", name="kernel")(x)


def frozen(layers, x):
    return layers.Conv2D(8, 3, activation="relu", name="kernel", trainable=False)(x)


def few_weights(layers, x):
    """Two weights, of which one is zero."""
    return layers.Conv2D(2, 1, name="kernel")(x)


BODIES = [
    convolution,
    separable,
    transposed,
    along_time,
    transposed_along_time,
    unknown_activation,
    frozen,
    few_weights,
]


def compressed(body):
    """The net with half of each kernel zero and few values in the rest."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Flatten()(body(layers, image))
    model = canonical_form(tf_keras.Model(image, layers.Dense(3, activation="softmax", name="dense")(x)))
    for name, kernel in compressible_kernels(model).items():
        kernel_of(model, name).assign(half_zero(of_few_values(kernel), kernel))
    return model


def kernel_of(model, name):
    layer = model.get_layer(name)
    return getattr(layer, KERNEL_ATTRIBUTES[type(layer).__name__])


@pytest.fixture
def quantized(data):
    """Trains a model with fake quantization, keeping what is claimed. Eager: so few steps pay for no graph."""
    import tf_keras

    def train(model, _):
        model.compile(tf_keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
        model.fit(data.inputs("train"), data.labels("train"), batch_size=64, epochs=1, verbose=0)

    return lambda model, claims: quantize_aware(model, "leaf", claims, train)


def kernels_after(trained):
    """Kernels by layer, of a model that quantization-aware training returns."""
    suffix = "/kernel:0"
    return {weight.name.removesuffix(suffix): weight.numpy() for weight in trained.weights if suffix in weight.name}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_zeros_and_ties_survive_training_while_values_change(body, quantized):
    model = compressed(body)
    before = {name: kernel.copy() for name, kernel in compressible_kernels(model).items()}
    after = kernels_after(quantized(model, claims_on(model, "sparse", "clustered")))
    for name, old in before.items():
        new = after[name]
        assert (new[old == 0] == 0).all(), name
        assert all(len(np.unique(new[old == value])) == 1 for value in np.unique(old)), name
        assert np.array_equal(new, old) == (body is frozen and name == "kernel"), name


def test_zeros_without_ties(quantized):
    model = compressed(convolution)
    before = model.get_layer("kernel").kernel.numpy()
    after = kernels_after(quantized(model, claims_on(model, "sparse")))["kernel"]
    assert (after[before == 0] == 0).all()
    assert len(np.unique(after)) > len(np.unique(before))


def test_ties_without_zeros(quantized):
    model = compressed(convolution)
    before = model.get_layer("kernel").kernel.numpy()
    after = kernels_after(quantized(model, claims_on(model, "clustered")))["kernel"]
    assert len(np.unique(after)) == len(np.unique(before))
    assert (after[before == 0] != 0).all()


def test_what_is_not_claimed_is_not_kept(quantized):
    model = compressed(convolution)
    before = model.get_layer("kernel").kernel.numpy()
    claims = claims_on(model, "sparse", "clustered")
    only_dense = Claims(
        zero_positions={"dense": claims.zero_positions["dense"]}, clusters={"dense": claims.clusters["dense"]}
    )
    after = kernels_after(quantized(model, only_dense))
    assert not (after["kernel"][before == 0] == 0).all()
    assert len(np.unique(after["dense"])) <= claims.clusters["dense"]


@pytest.mark.parametrize(("palette", "scales"), [("tensor", 1), ("channel", 8)])
def test_a_clustered_convolution_has_one_range_or_one_per_channel(quantized, palette, scales):
    model = compressed(convolution)
    kernel = model.get_layer("kernel").kernel
    kernel.assign(kernel.numpy() * np.where(np.arange(8) % 2, 1, 0.5))
    trained = quantized(model, claims_on(model, "clustered", palette=palette))
    (ranges,) = (weight.numpy() for weight in trained.weights if weight.name.startswith("quant_kernel/kernel_max"))
    kernel = kernels_after(trained)["kernel"]
    assert len(set(ranges)) > 1 if scales > 1 else len(set(ranges)) == 1
    largest = np.abs(kernel).max() if scales == 1 else np.abs(kernel).max(axis=(0, 1, 2))
    np.testing.assert_allclose(ranges, np.broadcast_to(largest, ranges.shape), rtol=1e-6)


def test_trained_weights_give_the_plain_model_what_was_learned(quantized, data):
    model = compressed(convolution)
    untrained = model.get_weights()
    trained = quantized(model, claims_on(model, "sparse", "clustered"))
    kernels = kernels_after(trained)
    plain = trained_weights(trained, model)
    assert not any(np.array_equal(old, new) for old, new in zip(untrained, plain.get_weights(), strict=True))
    for name, kernel in compressible_kernels(plain).items():
        np.testing.assert_array_equal(kernel, kernels[name])
    inputs = data.inputs("test")
    np.testing.assert_allclose(plain(inputs), trained(inputs, training=False), atol=0.05)
