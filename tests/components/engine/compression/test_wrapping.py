"""Whatever the architecture, training under imposed kernels leaves a plain model with exactly those kernels."""

import numpy as np
import pytest

from collabopt.components.engine.compression.clustering import cluster
from collabopt.components.engine.compression.kernels import compressible_kernels, distinct_values
from collabopt.components.engine.compression.pruning import prune
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import ClusteringSettings, PruningSettings


def one_dimensional(layers, x):
    x = layers.Reshape((16, 4))(x)
    return layers.SeparableConv1D(8, 3, name="separable")(layers.Conv1D(8, 3, name="along")(x))


def grouped_and_transposed(layers, x):
    x = layers.Conv2D(8, 3, name="plain")(x)
    return layers.Conv2DTranspose(6, 3, name="transposed")(layers.Conv2D(8, 3, groups=2, name="grouped")(x))


def separable(layers, x):
    return layers.SeparableConv2D(8, 3, name="separable", pointwise_regularizer="l2")(layers.Conv2D(8, 3)(x))


def shared(layers, x):
    twice = layers.Conv2D(4, 3, padding="same", name="twice")
    x = layers.Conv2D(4, 1, name="first")(x)
    return layers.Add()([twice(x), twice(twice(x))])


def operators(layers, x):
    import tensorflow as tf

    return tf.nn.relu(layers.Conv2D(8, 3, name="conv")(x) * 2.0 + tf.reduce_mean(x)) / 3.0


NETS = [one_dimensional, grouped_and_transposed, separable, shared, operators]


@pytest.fixture(params=NETS)
def any_net(request):
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1))
    x = layers.BatchNormalization()(request.param(layers, inputs))
    return tf_keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(layers.Flatten()(x)))


@pytest.fixture
def watched(fit, data):
    """Fine-tunes, and keeps what the wrapped model predicts in the end."""

    def run(model, callbacks):
        run.names = [layer.name for layer in model.layers]
        fit(model, callbacks)
        run.predicted = model.predict(data.inputs("test"), verbose=0)

    return run


@pytest.mark.parametrize("per_channel", [False, True])
def test_pruned_then_clustered(any_net, watched, data, per_channel):
    names = [layer.name for layer in any_net.layers]
    before = any_net.get_weights()
    pruned, claims = prune(any_net, PruningSettings(epochs=1), data.spec.sizes["train"], watched)
    zeros = {name: kernel == 0 for name, kernel in compressible_kernels(pruned).items()}
    assert set(claims.sparsity) == set(zeros)
    assert all(mask.mean() == pytest.approx(0.5, abs=0.05) for mask in zeros.values())

    settings = ClusteringSettings(number_of_clusters=3, per_channel=per_channel)
    clustered, claims = cluster(pruned, settings, claims, watched)
    kernels = compressible_kernels(clustered)
    for name, kernel in kernels.items():
        axis = kernel.ndim - 1 - (name == "transposed") if per_channel else None
        assert (kernel[zeros[name]] == 0).all()
        assert distinct_values(kernel, axis) <= 3
        assert not np.signbit(kernel[zeros[name]]).any()
    assert {name for name, count in claims.clusters.items() if count == 3} >= set(kernels) - {"first"}

    assert [layer.name for layer in clustered.layers] == watched.names == names
    assert not any("Wrapper" in base.__name__ for layer in clustered.layers for base in type(layer).__mro__)
    np.testing.assert_allclose(clustered.predict(data.inputs("test"), verbose=0), watched.predicted, atol=1e-6)
    learned = [(old != new).any() for old, new in zip(before, clustered.get_weights(), strict=True)]
    assert all(learned)


def test_a_regularizer_pulls_on_what_is_imposed(fit):
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3, kernel_regularizer="l2", name="dense")]
    )

    def compare(wrapped, callbacks):
        kernel = wrapped.get_layer("dense").imposed_kernel().numpy()
        assert wrapped.losses[0].numpy() == pytest.approx(0.01 * np.sum(kernel**2), rel=1e-5)
        assert len(wrapped.losses) == 1

    cluster(model, ClusteringSettings(number_of_clusters=4), Claims(), compare)
    assert model.get_layer("dense").kernel_regularizer is not None
