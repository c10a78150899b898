"""Models that TFMOT's own clustering and preserving schemes fail on, or silently leave as they are, and that we take.

Further ones, which only the deployed bytes give away, are in `deployed/test_contract.py`.
"""

import numpy as np
import pytest

from collabopt.components.engine.compression.clustering import cluster
from collabopt.components.engine.compression.kernels import claims_of, compressible_kernels, distinct_values
from collabopt.components.engine.compression.quantization import quantize_aware, trained_weights
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import ClusteringSettings

CLUSTERS = 4


def copy_of(model):
    """For TFMOT, which clusters the very layers that it is given."""
    import tf_keras

    copy = tf_keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    return copy


def change_kernel(layer, change):
    kernel, *rest = layer.get_weights()
    layer.set_weights([change(kernel), *rest])


def stock_clustering(model, initialization="LINEAR", **options):
    import tensorflow_model_optimization as tfmot

    initialization = tfmot.clustering.keras.CentroidInitialization[initialization]
    return tfmot.clustering.keras.cluster_weights(
        copy_of(model), number_of_clusters=CLUSTERS, cluster_centroids_init=initialization, **options
    )


def stock_quantization(model, scheme_name, **options):
    import tensorflow_model_optimization as tfmot

    annotated = tfmot.quantization.keras.quantize_annotate_model(model)
    scheme = getattr(tfmot.experimental.combine, scheme_name)(**options)
    return tfmot.quantization.keras.quantize_apply(annotated, scheme)


def most_values_of_a_channel(model):
    return {name: distinct_values(kernel, kernel.ndim - 1) for name, kernel in compressible_kernels(model).items()}


# --- clustering ---


def test_stock_leaves_a_convolution_without_bias_unclustered_per_channel_but_ours_does_not(net, fit):
    import tensorflow_model_optimization as tfmot

    with pytest.warns(UserWarning, match="Layer conv does not have enough weights"):
        wrapped = stock_clustering(net, cluster_per_channel=True)
    fit(wrapped, [])
    stock = tfmot.clustering.keras.strip_clustering(wrapped)
    ours, _ = cluster(net, ClusteringSettings(number_of_clusters=CLUSTERS, per_channel=True), Claims(), fit)
    all_weights_of_a_channel = 9
    assert most_values_of_a_channel(stock) == {"conv": all_weights_of_a_channel, "pointwise": 4, "dense": 4}
    assert most_values_of_a_channel(ours) == {"conv": 4, "pointwise": 4, "dense": 4}


@pytest.mark.parametrize("per_channel", [False, True])
def test_stock_refuses_a_model_with_a_frozen_convolution_but_ours_clusters_the_rest(net, fit, per_channel):
    frozen = net.get_layer("conv")
    frozen.trainable = False
    before = frozen.kernel.numpy()
    with pytest.raises(ValueError, match="Layer conv has no weights to cluster"):
        stock_clustering(net, cluster_per_channel=per_channel)
    settings = ClusteringSettings(number_of_clusters=CLUSTERS, per_channel=per_channel)
    ours, claims = cluster(net, settings, Claims(), fit)
    assert claims.clusters == {"pointwise": 4, "dense": 4}
    np.testing.assert_array_equal(ours.get_layer("conv").kernel.numpy(), before)


@pytest.mark.filterwarnings("ignore:Layer conv does not have enough weights")
def test_stock_fails_on_an_output_channel_without_weights_but_ours_keeps_it_empty(net, fit):
    import tensorflow as tf

    def prune(kernel):
        by_channel = np.median(np.abs(kernel), axis=tuple(range(kernel.ndim - 1)))
        return np.where(np.abs(kernel) < by_channel, 0, kernel)

    def empty_first_channel(kernel):
        return np.concatenate([np.zeros_like(kernel[..., :1]), kernel[..., 1:]], axis=-1)

    for name in compressible_kernels(net):
        change_kernel(net.get_layer(name), prune)
    stock_clustering(net, cluster_per_channel=True, preserve_sparsity=True)
    change_kernel(net.get_layer("pointwise"), empty_first_channel)
    for initialization in ("LINEAR", "KMEANS_PLUS_PLUS"):
        with pytest.raises(tf.errors.InvalidArgumentError, match="Shapes of all inputs must match"):
            stock_clustering(net, initialization, cluster_per_channel=True, preserve_sparsity=True)

    zeros = {name: kernel == 0 for name, kernel in compressible_kernels(net).items()}
    parent = claims_of(net, pruned=zeros, clustered=())
    ours, claims = cluster(net, ClusteringSettings(number_of_clusters=CLUSTERS, per_channel=True), parent, fit)
    assert claims.clusters == {"conv": 4, "pointwise": 4, "dense": 4}
    assert not ours.get_layer("pointwise").kernel.numpy()[..., 0].any()
    for name, kernel in compressible_kernels(ours).items():
        np.testing.assert_array_equal(kernel == 0, zeros[name])


# --- quantization-aware training ---


def classifier(body):
    """A net whose kernels, but for the head's, have nine values at most, half of their weights being zero."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Flatten()(body(layers, image))
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax", name="head")(x))

    def compress(kernel):
        levels = np.linspace(-0.5, 0.5, 8)[np.digitize(kernel, np.linspace(-0.4, 0.4, 7))]
        return np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, levels)

    for name in compressible_kernels(model):
        if name != "head":
            change_kernel(model.get_layer(name), compress)
    return model


def conv1d(layers, x):
    return layers.Conv1D(8, 3, activation="relu", name="conv1d")(layers.Reshape((8, 8))(x))


def multiply(layers, x):
    gate = layers.Conv2D(4, 3, activation="sigmoid", name="gate")(x)
    return layers.Multiply()([layers.Conv2D(4, 3, activation="relu", name="gated")(x), gate])


def conv2d_transpose(layers, x):
    return layers.Conv2DTranspose(4, 3, activation="relu", name="conv2d_transpose")(x)


@pytest.mark.parametrize(
    ("body", "layer"),
    [(conv1d, "Conv1D"), (multiply, "Multiply"), (conv2d_transpose, "Conv2DTranspose")],
    ids=["conv1d", "multiply", "conv2d_transpose"],
)
def test_stock_preserving_schemes_refuse_layers_beside_which_ours_keeps_zeros_and_palettes(body, layer, fit):
    model = classifier(body)
    for scheme in ("Default8BitPrunePreserveQuantizeScheme", "Default8BitClusterPreserveQuantizeScheme"):
        with pytest.raises(
            (RuntimeError, ValueError), match=rf"unsupported layer .*{layer}|{layer}'> is not supported"
        ):
            stock_quantization(model, scheme)

    before = {name: kernel for name, kernel in compressible_kernels(model).items() if name != "head"}
    fit.settings = fit.settings.model_copy(update={"learning_rate": 0.01})
    quantized = quantize_aware(model, "leaf", claims_of(model, pruned=before, clustered=before), fit)
    after = compressible_kernels(trained_weights(quantized, model))
    for name, kernel in before.items():
        assert (after[name] != kernel).any()
        np.testing.assert_array_equal(after[name] == 0, kernel == 0)
        assert classes(kernel) == classes(kernel, after[name])


def classes(*kernels):
    """Number of distinct weights, or of distinct pairs of weights at the same place."""
    return len(np.unique(np.stack([kernel.reshape(-1) for kernel in kernels]), axis=1).T)


def more_values_than_1024(kernel):
    rank = np.argsort(np.argsort(kernel.reshape(-1))).reshape(kernel.shape)
    return np.linspace(-0.3, 0.3, kernel.size // 2)[rank // 2]


def one_value(kernel):
    return np.full_like(kernel, 0.1)


@pytest.mark.parametrize("values", [more_values_than_1024, one_value])
def test_stock_keeps_no_palette_of_more_than_1024_values_or_of_one_but_ours_does(values, fit):
    model = classifier(lambda layers, x: layers.Dense(40, activation="relu", name="dense")(layers.Flatten()(x)))
    change_kernel(model.get_layer("dense"), values)
    before = model.get_layer("dense").kernel.numpy()
    distinct = len(np.unique(before))
    assert distinct > 1024 or distinct == 1

    fit.settings = fit.settings.model_copy(update={"learning_rate": 0.01})
    with pytest.warns(UserWarning, match="No clustering performed on layer quant_dense"):
        stock = stock_quantization(model, "Default8BitClusterPreserveQuantizeScheme", preserve_sparsity=False)
    fit(stock, [])
    (lost,) = (weight.numpy() for weight in stock.weights if weight.name == "dense/kernel:0")
    assert classes(lost) > 1.5 * distinct

    claims = claims_of(model, pruned=(), clustered=["dense"])
    kept = trained_weights(quantize_aware(model, "leaf", claims, fit), model).get_layer("dense").kernel.numpy()
    assert (kept != before).any()
    assert classes(before, kept) == classes(before) == distinct
