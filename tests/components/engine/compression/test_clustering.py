import numpy as np
import pytest

from collabopt.components.engine.compression.clustering import cluster
from collabopt.components.engine.compression.kernels import claims_of, compressible_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import ClusteringSettings


def zero_smaller_half(model):
    for layer in model.layers:
        if layer.name in compressible_kernels(model):
            kernel, *rest = layer.get_weights()
            layer.set_weights([np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, kernel), *rest])


@pytest.mark.parametrize("initialization", ["kmeans++", "linear", "density", "random"])
def test_no_layer_keeps_more_values_than_clusters(net, fit, initialization):
    settings = ClusteringSettings(number_of_clusters=5, centroid_initialization=initialization, epochs=1)
    clustered = cluster(net, settings, preserve_sparsity=False, fit=fit)
    clusters = claims_of(clustered, pruned=False, clustered=True).clusters
    assert set(clusters) == {"conv", "pointwise", "dense"}
    assert max(clusters.values()) <= 5


def test_zeros_stay_where_they_are(net, fit):
    zero_smaller_half(net)
    zeros = {name: kernel == 0 for name, kernel in compressible_kernels(net).items()}
    clustered = cluster(net, ClusteringSettings(number_of_clusters=6), preserve_sparsity=True, fit=fit)
    for name, kernel in compressible_kernels(clustered).items():
        assert zeros[name].mean() >= 0.45
        assert (kernel[zeros[name]] == 0).all(), name
        assert len(np.unique(kernel)) <= 6, name


def test_per_channel_clusters_each_channel(net, fit):
    settings = ClusteringSettings(number_of_clusters=4, per_channel=True)
    clustered = cluster(net, settings, preserve_sparsity=False, fit=fit)
    kernel = compressible_kernels(clustered)["pointwise"]
    assert max(len(np.unique(kernel[..., channel])) for channel in range(kernel.shape[-1])) <= 4
    assert len(np.unique(kernel)) > 4
    kernel[..., 0] = kernel[0, 0, 0, 0]
    clustered.get_layer("pointwise").set_weights([kernel, *clustered.get_layer("pointwise").get_weights()[1:]])
    claims = claims_of(clustered, pruned=False, clustered=True, per_channel=True)
    assert claims.clusters["pointwise"] == max(len(np.unique(kernel[..., c])) for c in range(kernel.shape[-1])) > 1


def test_a_layer_with_fewer_values_than_clusters_is_left_alone(net, fit):
    clustered = cluster(net, ClusteringSettings(number_of_clusters=100), preserve_sparsity=False, fit=fit)
    kernels = compressible_kernels(clustered)
    assert len(np.unique(kernels["dense"])) <= 100
    assert len(np.unique(kernels["conv"])) == kernels["conv"].size


def test_more_clusters_than_any_layer_has_values_is_refused(net, fit):
    with pytest.raises(CollaboptError, match="no layer has more than 100000 distinct weights"):
        cluster(net, ClusteringSettings(number_of_clusters=100_000), preserve_sparsity=False, fit=fit)
