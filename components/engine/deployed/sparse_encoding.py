"""Decodes TFLite's sparse tensors, which store nonzero values or blocks along a traversal order.

The format is that of the `SparsityParameters` table in TFLite's schema; it covers CSR, block CSR, and dense dimensions
between sparse ones.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# A damaged file may claim any size. No network that works is sparser.
_MAX_DENSE_PER_STORED = 2**14


def to_dense(stored: np.ndarray, sparsity: Any, shape: Sequence[int]) -> np.ndarray:
    """Puts stored values to their places among zeros.

    Args:
        stored: The values in traversal order; more than needed where a packed type fills its last byte.
        sparsity: `SparsityParametersT` of the tensor.
        shape: Dense shape.

    Raises:
        ValueError: Encoding and shape do not fit.
    """
    values = math.prod(shape)
    if values > _MAX_DENSE_PER_STORED * len(stored):
        raise ValueError("a sparse tensor of impossible size")
    coordinates = _traverse(sparsity, values)
    dense = np.zeros(shape, stored.dtype)
    dense[_undo_blocks(coordinates, sparsity, len(shape))] = stored[: len(coordinates[0])]
    return dense


def _traverse(sparsity: Any, limit: int) -> list[np.ndarray]:
    """Coordinates of every stored value, one array per level of the traversal."""
    nodes = np.zeros(1, dtype=np.int64)
    coordinates: list[np.ndarray] = []
    for level in sparsity.dimMetadata:
        if level.arraySegments is None:
            counts = np.full(len(nodes), level.denseSize, dtype=np.int64)
            starts = nodes * level.denseSize
        else:
            segments = np.asarray(level.arraySegments.values, dtype=np.int64)
            counts, starts = segments[nodes + 1] - segments[nodes], segments[nodes]
        if counts.min(initial=0) < 0 or counts.sum() > limit:
            raise ValueError("a sparse tensor whose segments do not fit")
        parents = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(len(parents)) - np.repeat(np.cumsum(counts) - counts, counts)
        nodes = starts[parents] + within
        coordinates = [known[parents] for known in coordinates]
        coordinates.append(within if level.arraySegments is None else np.asarray(level.arrayIndices.values)[nodes])
    return coordinates


def _undo_blocks(coordinates: list[np.ndarray], sparsity: Any, rank: int) -> tuple[np.ndarray, ...]:
    """Coordinates in the dense tensor: blocked dimensions are split into a block and a place within it."""
    dense: list[Any] = [None] * rank
    order = [int(dimension) for dimension in sparsity.traversalOrder]
    for level in sorted(range(len(order)), key=order.__getitem__):
        if order[level] < rank:
            dense[order[level]] = coordinates[level].astype(np.int64)
        else:
            blocked = sparsity.blockMap[order[level] - rank]
            dense[blocked] = dense[blocked] * sparsity.dimMetadata[level].denseSize + coordinates[level]
    return tuple(dense)
