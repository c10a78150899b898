import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.compression.quantization import quantize_aware
from collabopt.components.engine.deployed.convert import to_int8
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.errors import CollaboptError


def compress(model, *, sparse, values):
    """Gives every kernel few distinct values, half of them zero where sparse."""
    for layer in model.layers:
        if layer.name in compressible_kernels(model):
            kernel, *rest = layer.get_weights()
            levels = np.linspace(-0.5, 0.5, values)[np.digitize(kernel, np.linspace(-0.4, 0.4, values - 1))]
            if sparse:
                levels = np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, levels)
            layer.set_weights([levels.astype(np.float32), *rest])


def deployed_weights(model):
    deployed = inspect_tflite(to_int8(model, None))
    assert deployed.float_operators == []
    return [tensor for tensor in deployed.weights if tensor.op != "DEPTHWISE_CONV_2D"]


@pytest.mark.parametrize(("preserve", "kept"), [(frozenset(), False), (frozenset({"sparse"}), True)])
def test_zeros_reach_the_deployed_file_only_if_preserved(net, fit, preserve, kept):
    compress(net, sparse=True, values=200)
    weights = deployed_weights(quantize_aware(net, "leaf", preserve, fit))
    assert len(weights) == 3
    for tensor in weights:
        assert (tensor.zero_fraction >= 0.48) == kept, tensor


@pytest.mark.parametrize("preserve", [frozenset({"clustered"}), frozenset({"sparse", "clustered"})])
def test_clusters_reach_the_deployed_file_on_every_channel(net, fit, preserve):
    compress(net, sparse="sparse" in preserve, values=8)
    for tensor in deployed_weights(quantize_aware(net, "leaf", preserve, fit)):
        assert tensor.max_distinct_values_per_channel <= 9, tensor
        if "sparse" in preserve:
            assert tensor.zero_fraction >= 0.48, tensor


def test_a_layer_that_cannot_be_quantized_is_named(fit):
    import tf_keras

    layers = tf_keras.layers
    inputs = layers.Input((8, 1))
    x = layers.Flatten()(layers.Conv1D(4, 3, name="along_time")(inputs))
    model = tf_keras.Model(inputs, layers.Dense(2)(x))
    with pytest.raises(CollaboptError) as error:
        quantize_aware(model, "pqat", frozenset({"sparse"}), fit)
    assert "stage 'pqat'" in str(error.value)
    assert "'along_time' (Conv1D)" in str(error.value)
