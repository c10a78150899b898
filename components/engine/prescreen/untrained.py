"""A leaf without its training: the baseline's own weights, masked, clustered and quantized."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

from collabopt.components.engine.compression.clustering import cluster
from collabopt.components.engine.compression.pruning import prune_at_once
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.deployed.leaf import Leaf, quantize_untrained
from collabopt.components.engine.kept_claims import kept_claims
from collabopt.components.engine.prescreen.recipe import Recipe
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import ClusteringSettings, PruningSettings
from collabopt.components.engine.techniques import TECHNIQUES

_QUANTIZATION = TECHNIQUES["post_training_quantize"]


def untrained_leaf(model: Any, data: StoredDataset, recipe: Recipe) -> Leaf:
    """What a leaf's file would be if nothing on the way to it were trained.

    Args:
        model: The baseline; changed in place.
        data: The data set, for calibration.
        recipe: What is done to the model.

    Raises:
        CollaboptError: The model cannot be pruned or clustered so, or not converted.
    """
    claims = Claims()
    for technique, settings in recipe.interiors:
        model, claims = UNTRAINED[technique](model, settings, claims)
    claims = kept_claims(claims, _QUANTIZATION, {"palette": recipe.palette})
    representative = functools.partial(data.representative, recipe.representative_samples)
    return quantize_untrained(model, representative, claims)


def _prune(model: Any, settings: PruningSettings, claims: Claims) -> tuple[Any, Claims]:
    return prune_at_once(model, settings)


def _cluster(model: Any, settings: ClusteringSettings, claims: Claims) -> tuple[Any, Claims]:
    return cluster(model, settings, Claims(), _leave)


def _sparsity_preserving_cluster(model: Any, settings: ClusteringSettings, claims: Claims) -> tuple[Any, Claims]:
    return cluster(model, settings, claims, _leave)


def _leave(model: Any, callbacks: Sequence[Any]) -> None:
    """In the place of training."""


UNTRAINED: dict[str, Callable[[Any, Any, Claims], tuple[Any, Claims]]] = {
    "prune": _prune,
    "cluster": _cluster,
    "sparsity_preserving_cluster": _sparsity_preserving_cluster,
}
