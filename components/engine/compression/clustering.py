"""Weight clustering with tied weights (Han et al. 2016, https://arxiv.org/abs/1510.00149)."""

import functools
from collections.abc import Callable, Collection, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras

from collabopt.components.engine.compression.kernels import (
    channel_axis,
    check_zero_positions,
    claims_of,
    compressible_kernels,
    distinct_values,
    trainable_kernels,
)
from collabopt.components.engine.compression.palette import quantize_to_palette
from collabopt.components.engine.compression.structure import Structure
from collabopt.components.engine.compression.wrapping import KernelWrapper, unwrap_kernels, wrap_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_patterns import settings_by_layer
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import ClusteringSettings, LayerClustering


def cluster(
    model: Any,
    settings: ClusteringSettings,
    parent_claims: Claims,
    fit: Callable[[Any, Sequence[Any]], None],
) -> tuple[Any, Claims]:
    """Gives every layer a palette by k-means, then fine-tunes the palettes; which weight is in which cluster stays.

    Layers that are excluded or frozen, or have no more weights (with `per_channel`, on a channel) than there are
    clusters, are not clustered; what is not frozen of them is trained. A layer whose weights take fewer distinct values
    than there are clusters keeps those as its palette. Constraints on kernels are not imposed on palettes.

    Args:
        model: A plain tf_keras model; changed in place, so load it afresh for every stage.
        settings: Clusters, their initialisation and training settings.
        parent_claims: Zeros stay at their places in the layers of `zero_positions`, where one of the clusters is the
            zero; elsewhere they are weights like any other. Empty for plain clustering.
        fit: Called with the wrapped model and the callbacks it needs; trains it in place.

    Returns:
        The model, and what it may now claim: palettes of the layers that were clustered, zeros of those of the parent.

    Raises:
        CollaboptError: Nothing in the model can be clustered, or the parent is not what its claims say, or a pattern
            matches no layer that can be clustered.
    """
    sparse = frozenset(parent_claims.zero_positions)
    parents = compressible_kernels(model)
    check_zero_positions(parents, parent_claims)
    layers = {name: model.get_layer(name) for name in trainable_kernels(model)}
    axes = {name: channel_axis(layer) if settings.per_channel else None for name, layer in layers.items()}
    sizes = cluster_counts(list(layers), settings)
    clustered = {name for name in sizes if _weights_of_a_palette(parents[name], axes[name]) > sizes[name]}
    _check_feasible({name: distinct_values(parents[name], axes[name]) for name in clustered}, sizes, settings)

    imposed = {
        name: _tied(parents[name], settings, sizes[name], sparse=name in sparse, axis=axes[name]) for name in clustered
    }
    imposed |= {name: _zeros_kept(parents[name]) for name in layers if name in sparse - clustered}
    wrapped = wrap_kernels(model, imposed)
    fit(wrapped, [])
    unwrap_kernels(wrapped, model)
    _check_zeros_kept(parents, compressible_kernels(model), sparse)
    return model, claims_of(model, pruned=sparse, clustered=clustered, per_channel=settings.per_channel)


def cluster_counts(names: Collection[str], settings: ClusteringSettings) -> dict[str, int]:
    """How many clusters every layer that is to be clustered gets: its own number, or that of all.

    Args:
        names: Layers that can be clustered.
        settings: Numbers of clusters.

    Returns:
        Layer -> number of clusters, without layers that are excluded.

    Raises:
        CollaboptError: A pattern matches none of the layers, or all of them are excluded.
    """
    own = settings_by_layer(settings.layers, names, "clustered")
    counts = {name: _count(own.get(name), settings.number_of_clusters) for name in names}
    if names and not any(counts.values()):
        raise CollaboptError(
            "the settings exclude every layer, so nothing is clustered",
            where="layers",
            todo="cluster one layer at least, or leave the clustering stages out for this model",
        )
    return {name: count for name, count in counts.items() if count}


def _count(own: LayerClustering | Literal["exclude"] | None, of_all: int) -> int:
    if own is None:
        return of_all
    return own.number_of_clusters if isinstance(own, LayerClustering) else 0


class _SparseKernel(KernelWrapper):
    """Keeps the zeros of a kernel that is not clustered."""

    def __init__(self, layer: Any, structure: Structure) -> None:
        super().__init__(layer)
        self._structure = structure

    def imposed_kernel(self) -> tf.Tensor:
        return self._structure.apply(tf.convert_to_tensor(self.kernel))


def _zeros_kept(kernel: np.ndarray) -> Callable[[Any], KernelWrapper]:
    return functools.partial(_SparseKernel, structure=Structure.of(kernel, sparse=True, clustered=False))


class _TiedKernel(KernelWrapper):
    """Trains a palette in place of the kernel that reads from it."""

    def __init__(self, layer: Any, structure: Structure, palette: np.ndarray) -> None:
        super().__init__(layer)
        self._structure = structure
        self._initial = palette

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.palette = self.add_weight(
            "palette", self._initial.shape, initializer=tf_keras.initializers.Constant(self._initial)
        )

    def imposed_kernel(self) -> tf.Tensor:
        return self._structure.spread(tf.convert_to_tensor(self.palette), self.kernel.shape)

    @property
    def trainable_weights(self) -> list[Any]:
        return [weight for weight in super().trainable_weights if weight is not self.kernel]

    @property
    def non_trainable_weights(self) -> list[Any]:
        return [*super().non_trainable_weights, self.kernel] if self.built else super().non_trainable_weights


def _tied(
    kernel: np.ndarray, settings: ClusteringSettings, clusters: int, *, sparse: bool, axis: int | None
) -> Callable[[Any], KernelWrapper]:
    """Clusters a kernel, or each of its slices along `axis`; what wraps the layer with the palettes."""
    values = kernel.copy()
    for part in [values] if axis is None else np.moveaxis(values, axis, 0):
        chosen = part != 0 if sparse else np.ones(part.shape, bool)
        part[chosen] = quantize_to_palette(
            part[chosen], clusters - sparse, settings.centroid_initialization, settings.seed
        )
    structure = Structure.of(values, sparse=sparse, clustered=True, channel_axis=axis)
    palette = structure.palette(tf.constant(values)).numpy()
    return functools.partial(_TiedKernel, structure=structure, palette=palette)


def _weights_of_a_palette(kernel: np.ndarray, axis: int | None) -> int:
    return kernel.size if axis is None else kernel.size // kernel.shape[axis]


def _check_feasible(distinct: dict[str, int], counts: dict[str, int], settings: ClusteringSettings) -> None:
    if all(distinct[name] <= counts[name] for name in distinct):
        where = "on an output channel" if settings.per_channel else "in its kernel"
        least = min(counts.values(), default=settings.number_of_clusters)
        raise CollaboptError(
            f"no trainable layer has more than {least} distinct weights {where}, so nothing can be clustered",
            todo="use fewer clusters, or leave the clustering stages out for this model",
        )


def _check_zeros_kept(before: dict[str, np.ndarray], after: dict[str, np.ndarray], sparse: frozenset[str]) -> None:
    lost = sorted(name for name in sparse if np.any(after[name][before[name] == 0]))
    if lost:
        raise CollaboptError(
            f"clustering has lost zeros of its parent in {', '.join(lost)}",
            where=f"layer '{lost[0]}'",
            todo="this is a fault in collabopt; please report it with the model",
        )
