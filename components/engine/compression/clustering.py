"""Weight clustering (Han et al. 2016, https://arxiv.org/abs/1510.00149) by TFMOT's `cluster_weights`."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import ClusteringSettings

_CENTROID_INITIALIZATIONS = {
    "kmeans++": "KMEANS_PLUS_PLUS",
    "linear": "LINEAR",
    "density": "DENSITY_BASED",
    "random": "RANDOM",
}


def cluster(
    model: Any, settings: ClusteringSettings, *, preserve_sparsity: bool, fit: Callable[[Any, Sequence[Any]], None]
) -> Any:
    """Clusters every compressible layer that has more distinct weights than clusters, while fine-tuning.

    Args:
        model: A plain tf_keras model; its own layers are trained, so load it afresh for every stage.
        settings: Clusters, their initialisation and training settings.
        preserve_sparsity: Keep zeros at their places; one of the clusters is then the zero.
        fit: Called with the wrapped model and the callbacks it needs; trains it in place.

    Returns:
        The plain model with at most `number_of_clusters` distinct values in every clustered kernel.

    Raises:
        CollaboptError: Nothing in the model can be clustered.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    names = {
        name
        for name, kernel in compressible_kernels(model).items()
        if len(np.unique(kernel)) > settings.number_of_clusters
    }
    if not names:
        raise CollaboptError(
            f"no layer has more than {settings.number_of_clusters} distinct weights, so nothing can be clustered",
            todo="use fewer clusters, or leave the clustering stages out for this model",
        )
    options = {
        "number_of_clusters": settings.number_of_clusters,
        "cluster_centroids_init": tfmot.clustering.keras.CentroidInitialization[
            _CENTROID_INITIALIZATIONS[settings.centroid_initialization]
        ],
        "preserve_sparsity": preserve_sparsity,
        "cluster_per_channel": settings.per_channel,
    }

    def wrap(layer: Any) -> Any:
        if layer.name not in names:
            return layer
        try:
            return tfmot.clustering.keras.cluster_weights(layer, **options)
        except ValueError as error:
            raise CollaboptError(
                f"layer '{layer.name}' ({type(layer).__name__}) cannot be clustered: {error}",
                where=f"layer '{layer.name}'",
                todo="use a plain model with trainable layers, or fewer clusters",
            ) from error

    wrapped = tf_keras.models.clone_model(model, clone_function=wrap)
    fit(wrapped, [])
    return tfmot.clustering.keras.strip_clustering(wrapped)
