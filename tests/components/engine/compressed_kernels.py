"""Kernels such as pruning and clustering leave behind, for tests of what becomes of them."""

import numpy as np

from collabopt.components.engine.compression.kernels import compressible_kernels, zero_positions
from collabopt.components.engine.records import Claims

LEVELS = np.array([-0.4, -0.3, -0.15, 0, 0.2, 0.3, 0.45], np.float32)


def of_few_values(kernel):
    """Seven values instead of many; larger ones where weights are larger."""
    relative = kernel / np.abs(kernel).max()
    return LEVELS[np.digitize(relative, np.linspace(-0.7, 0.7, len(LEVELS) - 1))]


def half_zero(values, kernel):
    """The values, but zero where the kernel's weights are among the smaller half."""
    return np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0, values)


def without_largest_in_every_other_channel(values, axis):
    """The values with less in every second slice along an axis, so that scales per channel split the palette."""
    values = np.moveaxis(values.copy(), axis, 0)
    values[1::2] = np.clip(values[1::2], LEVELS[1], LEVELS[-2])
    return np.moveaxis(values, 0, axis)


def claims_on(model, *what, palette="tensor", but=()):
    """Claims on all kernels of a model but some, `sparse` and `clustered` or one of both."""
    kernels = {name: kernel for name, kernel in compressible_kernels(model).items() if name not in but}
    return Claims(
        sparsity={name: float(np.mean(kernel == 0)) for name, kernel in kernels.items()} if "sparse" in what else {},
        zero_positions={name: zero_positions(kernel) for name, kernel in kernels.items()} if "sparse" in what else {},
        clusters={name: len(np.unique(kernel)) for name, kernel in kernels.items()} if "clustered" in what else {},
        palette=palette,
    )
