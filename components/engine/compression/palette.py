"""The palette of a set of weights: k-means in one dimension, on sorted weights.

Clusters of numbers are intervals, so sorting once makes every step of Lloyd's algorithm (Lloyd 1982,
https://doi.org/10.1109/TIT.1982.1056489) a search for the borders between centroids and a look at prefix sums: its
cost grows with the number of clusters, not with that of weights.
"""

from collections.abc import Callable

import numpy as np

# Lloyd's algorithm ends by itself after some tens of rounds; weights by the million may take hundreds for borders that
# move by single weights.
_MOST_ROUNDS = 300
# k-means++ draws from so many of the sorted weights, evenly spaced.
_SEEDING_SAMPLE = 4096


def quantize_to_palette(weights: np.ndarray, size: int, initialization: str, seed: int) -> np.ndarray:
    """Replaces every weight by the centroid of its cluster.

    Args:
        weights: Flat array.
        size: Number of clusters. Weights of no more than so many distinct values are returned as they are.
        initialization: Where centroids start: `linear` between the least and the largest weight and `density` evenly
            in the distribution of weights (Han et al. 2016, https://arxiv.org/abs/1510.00149, section 3.2), `random`
            at distinct weights drawn evenly, `kmeans++` at weights drawn far from each other (Arthur & Vassilvitskii
            2007, http://ilpubs.stanford.edu:8090/778/).
        seed: Seeds the draws.

    Returns:
        An array of the same length and type with at most `size` distinct values.
    """
    order = np.argsort(weights, kind="stable")
    ordered = weights[order].astype(np.float64)
    if np.count_nonzero(np.diff(ordered)) < size:
        return weights.copy()
    start = _INITIALIZATIONS[initialization](ordered, size, np.random.default_rng(seed))
    sizes, centroids = _lloyd(ordered, np.sort(start))
    replaced = np.empty_like(weights)
    replaced[order] = np.repeat(centroids.astype(weights.dtype), sizes)
    return replaced


def _lloyd(ordered: np.ndarray, centroids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sizes of the clusters and their means; a cluster that has lost all its weights keeps its centroid."""
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    borders = np.empty(0)
    for _ in range(_MOST_ROUNDS):
        inner = np.searchsorted(ordered, (centroids[1:] + centroids[:-1]) / 2)
        previous, borders = borders, np.concatenate([[0], inner, [len(ordered)]])
        if np.array_equal(borders, previous):
            break
        sizes = np.diff(borders)
        centroids = np.where(sizes > 0, np.diff(sums[borders]) / np.maximum(sizes, 1), centroids)
    return sizes, centroids


def _linear(ordered: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    return np.linspace(ordered[0], ordered[-1], size)


def _density(ordered: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    return ordered[((np.arange(size) + 0.5) / size * len(ordered)).astype(int)]


def _random(ordered: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    return random.choice(np.unique(ordered), size, replace=False)


def _kmeans_plus_plus(ordered: np.ndarray, size: int, random: np.random.Generator) -> np.ndarray:
    candidates = ordered
    if len(ordered) > _SEEDING_SAMPLE:
        candidates = ordered[np.linspace(0, len(ordered) - 1, _SEEDING_SAMPLE).astype(int)]
    chosen = [random.choice(candidates)]
    distances = np.full(len(candidates), np.inf)
    while len(chosen) < size:
        distances = np.minimum(distances, (candidates - chosen[-1]) ** 2)
        reach = np.cumsum(distances)
        if reach[-1] == 0:
            break
        drawn = np.searchsorted(reach, random.uniform(0, reach[-1]), side="right")
        chosen.append(candidates[min(drawn, len(candidates) - 1)])
    return np.array(chosen)


_INITIALIZATIONS: dict[str, Callable[[np.ndarray, int, np.random.Generator], np.ndarray]] = {
    "kmeans++": _kmeans_plus_plus,
    "linear": _linear,
    "density": _density,
    "random": _random,
}
