"""What reaches the deployed file on the architectures that TFMOT's own preserving schemes lose.

Every net is run through ours and, where the loss is known, through the stock scheme, so that the check is seen failing.
"""

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.compression.preserving import PreservingScheme, settle
from collabopt.components.engine.deployed.convert import to_int8
from collabopt.components.engine.deployed.inspect import inspect_tflite

PALETTE = 8


def conv_relu(layers, x):
    """A convolution, then a ReLU of its own, without BatchNormalization."""
    return layers.ReLU()(layers.Conv2D(16, 3, name="conv")(x))


def branches(layers, x):
    """Two convolutions that feed a Concatenate."""
    return layers.Concatenate()([layers.Conv2D(8, 3, name="left")(x), layers.Conv2D(8, 3, name="right")(x)])


def residual(layers, x):
    """Two convolutions that feed an Add."""
    return layers.Add()([layers.Conv2D(16, 3, name="left")(x), layers.Conv2D(16, 3, name="right")(x)])


def batch_normalized(layers, x):
    """A convolution whose scales take up a BatchNormalization."""
    x = layers.Conv2D(16, 3, use_bias=False, name="conv")(x)
    return layers.ReLU()(layers.BatchNormalization(gamma_initializer="random_uniform")(x))


def separable(layers, x):
    """TFMOT splits it into a depthwise and a pointwise convolution."""
    return layers.SeparableConv2D(16, 3, activation="relu", name="separable")(x)


def unpruned_first(layers, x):
    """The first convolution is neither pruned nor clustered."""
    x = layers.Conv2D(8, 3, activation="relu", name="first_untouched")(x)
    return layers.Conv2D(16, 3, activation="relu", name="conv")(x)


NETS = [conv_relu, branches, residual, batch_normalized, separable, unpruned_first]


def compressed(body):
    """The net with half of each kernel zero and few values in the rest; one channel is all zero."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1))
    x = layers.Flatten()(body(layers, inputs))
    model = tf_keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(x))
    for name in compressible_kernels(model):
        layer = model.get_layer(name)
        if name.endswith("untouched"):
            continue
        weights = layer.get_weights()
        index = next(i for i, w in enumerate(weights) if w.size == compressible_kernels(model)[name].size)
        kernel = weights[index]
        levels = np.array([-0.4, -0.3, -0.15, 0.1, 0.2, 0.3, 0.45], np.float32)
        kernel = levels[np.digitize(kernel / np.abs(kernel).max(), np.linspace(-0.7, 0.7, 6))]
        kernel[np.abs(weights[index]) < np.median(np.abs(weights[index]))] = 0
        kernel[..., 0] = 0
        weights[index] = kernel
        layer.set_weights(weights)
    return model


def deployed(model, scheme, fit):
    import tensorflow_model_optimization as tfmot

    keras = tfmot.quantization.keras
    quantized = keras.quantize_apply(keras.quantize_annotate_model(model), scheme)
    fit(quantized, [])
    if isinstance(scheme, PreservingScheme):
        settle(quantized)
    else:
        quantized = tfmot.experimental.combine.strip_clustering_cqat(quantized)
    found = inspect_tflite(to_int8(quantized, None))
    assert found.float_operators == []
    return [tensor for tensor in found.weights if tensor.op != "DEPTHWISE_CONV_2D"]


def least_sparsity(weights):
    return min(tensor.zero_fraction for tensor in weights)


@pytest.mark.parametrize("body", NETS)
def test_zeros_reach_the_deployed_file(body, fit):
    weights = deployed(compressed(body), PreservingScheme(sparse=True, clustered=False), fit)
    assert least_sparsity(without_untouched(body, weights)) >= 0.5


@pytest.mark.parametrize("body", NETS)
def test_zeros_and_one_palette_per_tensor_reach_the_deployed_file(body, fit):
    weights = deployed(compressed(body), PreservingScheme(sparse=True, clustered=True), fit)
    weights = without_untouched(body, weights)
    assert least_sparsity(weights) >= 0.5
    assert max(tensor.distinct_values for tensor in weights) <= PALETTE


def test_palettes_are_kept_without_keeping_zeros(fit):
    weights = deployed(compressed(batch_normalized), PreservingScheme(sparse=False, clustered=True), fit)
    assert max(tensor.distinct_values for tensor in weights) <= PALETTE


def test_palettes_are_trained(fit):
    model = compressed(batch_normalized)
    fit.settings = fit.settings.model_copy(update={"learning_rate": 0.01})
    before = np.unique(model.get_layer("dense").get_weights()[0])
    import tensorflow_model_optimization as tfmot

    keras = tfmot.quantization.keras
    scheme = PreservingScheme(sparse=True, clustered=True)
    quantized = keras.quantize_apply(keras.quantize_annotate_model(model), scheme)
    fit(quantized, [])
    settle(quantized)
    after = np.unique(next(w for w in quantized.trainable_weights if "dense/kernel" in w.name).numpy())
    assert len(after) == len(before)
    assert (after == 0).any()
    moved = np.abs(after - before)
    assert np.count_nonzero(moved > 1e-3) >= len(before) // 2


@pytest.mark.parametrize("body", [conv_relu, branches])
def test_the_stock_scheme_loses_zeros(body, fit):
    import tensorflow_model_optimization as tfmot

    stock = tfmot.experimental.combine.Default8BitPrunePreserveQuantizeScheme()
    assert least_sparsity(deployed(compressed(body), stock, fit)) < 0.4


def test_the_stock_scheme_splits_a_palette_by_channel(fit):
    import tensorflow_model_optimization as tfmot

    stock = tfmot.experimental.combine.Default8BitClusterPreserveQuantizeScheme(preserve_sparsity=True)
    weights = deployed(compressed(batch_normalized), stock, fit)
    assert max(tensor.distinct_values for tensor in weights) > PALETTE


def without_untouched(body, weights):
    """All weights but those of the layer that was left dense, which is the first."""
    return weights[1:] if body is unpruned_first else weights
