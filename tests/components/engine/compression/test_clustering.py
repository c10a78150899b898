import numpy as np
import pytest

from collabopt.components.engine.compression.clustering import cluster
from collabopt.components.engine.compression.kernels import claims_of, compressible_kernels, distinct_values
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import ClusteringSettings


def zero_smaller_half(model):
    for name in compressible_kernels(model):
        change_kernel(model, name, lambda kernel: np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel))


def change_kernel(model, name, change):
    layer = model.get_layer(name)
    kernel, *rest = layer.get_weights()
    layer.set_weights([change(kernel), *rest])


def pruned_claims(model):
    return claims_of(model, pruned=compressible_kernels(model), clustered=())


def untrained(model, callbacks):
    """A fit that leaves the palettes as k-means has made them."""


@pytest.mark.parametrize("initialization", ["kmeans++", "linear", "density", "random"])
def test_no_layer_keeps_more_values_than_clusters(net, fit, initialization):
    settings = ClusteringSettings(number_of_clusters=5, centroid_initialization=initialization)
    clustered, claims = cluster(net, settings, Claims(), fit)
    assert set(claims.clusters) == {"conv", "pointwise", "dense"}
    for name, kernel in compressible_kernels(clustered).items():
        assert len(np.unique(kernel)) == claims.clusters[name] <= 5
    assert (claims.sparsity, claims.zero_positions, claims.palette) == ({}, {}, "tensor")


def test_palettes_and_the_other_weights_are_trained_but_memberships_are_not(net, fit):
    start = {}

    def remember_then_fit(model, callbacks):
        start.update({layer.name: layer.imposed_kernel().numpy() for layer in model.layers if layer.name in kernels})
        fit(model, callbacks)

    fit.settings = fit.settings.model_copy(update={"learning_rate": 0.01})
    kernels, bias = compressible_kernels(net), net.get_layer("dense").get_weights()[1]
    clustered, _ = cluster(net, ClusteringSettings(number_of_clusters=5), Claims(), remember_then_fit)
    for name, kernel in compressible_kernels(clustered).items():
        assert (np.unique(kernel) != np.unique(start[name])).all(), name
        pairs = np.unique(np.stack([kernel.reshape(-1), start[name].reshape(-1)]), axis=1)
        assert pairs.shape[1] == len(np.unique(start[name])), name
    assert (clustered.get_layer("dense").get_weights()[1] != bias).any()


def test_zeros_stay_where_they_are_and_are_one_of_the_clusters(net, fit):
    zero_smaller_half(net)
    zeros = {name: kernel == 0 for name, kernel in compressible_kernels(net).items()}
    parent = pruned_claims(net)
    clustered, claims = cluster(net, ClusteringSettings(number_of_clusters=6), parent, fit)
    for name, kernel in compressible_kernels(clustered).items():
        assert zeros[name].mean() >= 0.45
        np.testing.assert_array_equal(kernel == 0, zeros[name])
        assert len(np.unique(kernel)) == 6, name
    assert claims.sparsity == parent.sparsity
    assert claims.zero_positions == parent.zero_positions


def test_only_zeros_that_the_parent_claims_are_kept(net, fit):
    zero_smaller_half(net)
    parent = claims_of(net, pruned=["conv"], clustered=())
    clustered, claims = cluster(net, ClusteringSettings(number_of_clusters=6), parent, fit)
    zero_shares = {name: np.mean(kernel == 0) for name, kernel in compressible_kernels(clustered).items()}
    assert zero_shares["conv"] >= 0.45
    assert zero_shares["pointwise"] == zero_shares["dense"] == 0
    assert set(claims.sparsity) == {"conv"}


def test_zeros_of_a_layer_too_small_to_cluster_are_kept_too(net, fit):
    zero_smaller_half(net)
    parent = pruned_claims(net)
    zeros = net.get_layer("conv").kernel.numpy() == 0
    clustered, claims = cluster(net, ClusteringSettings(number_of_clusters=72), parent, fit)
    assert set(claims.clusters) == {"pointwise", "dense"}
    assert set(claims.zero_positions) == {"conv", "pointwise", "dense"}
    np.testing.assert_array_equal(clustered.get_layer("conv").kernel.numpy() == 0, zeros)


def test_a_parent_whose_zeros_are_elsewhere_is_refused(net):
    parent = pruned_claims(net)
    zero_smaller_half(net)
    with pytest.raises(CollaboptError, match="zeros are not where its record says, in conv, dense, pointwise"):
        cluster(net, ClusteringSettings(), parent, untrained)


def test_per_channel_clusters_each_channel_without_a_bias_too(net, fit):
    settings = ClusteringSettings(number_of_clusters=4, per_channel=True)
    clustered, claims = cluster(net, settings, Claims(), fit)
    assert claims.palette == "channel"
    assert claims.clusters == {"conv": 4, "pointwise": 4, "dense": 4}
    for kernel in compressible_kernels(clustered).values():
        assert distinct_values(kernel, kernel.ndim - 1) == 4
        assert len(np.unique(kernel)) > 4


@pytest.mark.parametrize("sparse", [False, True])
def test_channels_of_few_values_keep_them(net, sparse):
    def change(kernel):
        kernel = np.where(np.abs(kernel) < 0.1, 0, kernel)
        kernel[..., 0] = 0
        kernel[..., 1] = np.where(np.arange(8) < 3, 0.25, -0.5)
        return kernel

    change_kernel(net, "pointwise", change)
    expected = net.get_layer("pointwise").kernel.numpy()[..., :2]
    parent = claims_of(net, pruned=["pointwise"], clustered=()) if sparse else Claims()
    settings = ClusteringSettings(number_of_clusters=4, per_channel=True)
    clustered, claims = cluster(net, settings, parent, untrained)
    np.testing.assert_array_equal(clustered.get_layer("pointwise").kernel.numpy()[..., :2], expected)
    assert claims.clusters["pointwise"] == 4


def test_an_all_zero_layer_stays_so_where_zeros_are_kept(net, fit):
    change_kernel(net, "pointwise", np.zeros_like)
    clustered, claims = cluster(net, ClusteringSettings(number_of_clusters=4), pruned_claims(net), fit)
    assert not clustered.get_layer("pointwise").kernel.numpy().any()
    assert claims.clusters["pointwise"] == 1


def test_a_layer_with_fewer_values_than_clusters_keeps_so_many(net, fit):
    change_kernel(net, "pointwise", lambda kernel: np.where(kernel > 0, 0.25, -0.25))
    _, claims = cluster(net, ClusteringSettings(number_of_clusters=4), Claims(), fit)
    assert claims.clusters == {"conv": 4, "pointwise": 2, "dense": 4}


def test_a_layer_with_fewer_weights_than_clusters_is_left_alone(net, fit):
    clustered, claims = cluster(net, ClusteringSettings(number_of_clusters=100), Claims(), fit)
    assert set(claims.clusters) == {"pointwise", "dense"}
    kernel = clustered.get_layer("conv").kernel.numpy()
    assert len(np.unique(kernel)) == kernel.size


def test_frozen_layers_are_left_alone(net, fit):
    net.get_layer("conv").trainable = False
    before = net.get_layer("conv").kernel.numpy()
    clustered, claims = cluster(net, ClusteringSettings(number_of_clusters=4), Claims(), fit)
    assert set(claims.clusters) == {"pointwise", "dense"}
    np.testing.assert_array_equal(clustered.get_layer("conv").kernel.numpy(), before)


def test_more_clusters_than_any_layer_has_values_is_refused(net):
    with pytest.raises(CollaboptError, match="no trainable layer has more than 100000 distinct weights"):
        cluster(net, ClusteringSettings(number_of_clusters=100_000), Claims(), untrained)
    net.trainable = False
    with pytest.raises(CollaboptError, match="no trainable layer"):
        cluster(net, ClusteringSettings(number_of_clusters=4), Claims(), untrained)
