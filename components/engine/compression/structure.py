"""Which weights of a kernel are zero and which are equal, and how training keeps it so.

Equal weights are tied: all of them are read from one entry of a palette, and their gradients add up on it (Han et al.
2016, https://arxiv.org/abs/1510.00149, section 3.3), as in TFMOT's clustering with `GradientAggregation.SUM`. That is
one look-up as large as the kernel, with no loop over channels and no comparison of every weight with every centroid.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

# Gradients are counted into the palette in so many rows, at most, which are then added up: threads share the rows, and
# the order of additions is the same in every run. A sum over the flat kernel is not, as threads then race for parts.
_ROWS = 32


@dataclass(frozen=True)
class Structure:
    """Which weights of a kernel are tied, and which are zero.

    The arrays are tensors, so that the graph of a training step refers to them instead of holding a copy.

    Attributes:
        members: Weight -> number of its palette entry, `[rows, weights of a row]`; None where nothing is tied.
        representatives: Palette entry -> position in the flat kernel of a weight that has its value.
        nonzero: 0 for what stays zero, else 1: per palette entry where weights are tied, else per weight; None where
            zeros are not kept.
    """

    members: tf.Tensor | None
    representatives: tf.Tensor | None
    nonzero: tf.Tensor | None

    @classmethod
    def of(cls, kernel: np.ndarray, *, sparse: bool, clustered: bool, channel_axis: int | None = None) -> "Structure":
        """Reads the structure off a kernel.

        Args:
            kernel: The kernel; its exact zeros and its equal values count.
            sparse: Keep zeros at their places.
            clustered: Keep equal weights equal.
            channel_axis: Tie weights only within one slice along this axis; None ties them over the whole kernel.
        """
        flat = kernel.reshape(-1)
        if not clustered:
            return cls(None, None, tf.constant(flat != 0, kernel.dtype) if sparse else None)
        values, keys = np.unique(flat, return_inverse=True)
        if channel_axis is not None:
            keys = keys.reshape(-1) + len(values) * _channels(kernel.shape, channel_axis)
        _, representatives, members = np.unique(keys, return_index=True, return_inverse=True)
        rows = next(count for count in range(min(_ROWS, flat.size), 0, -1) if flat.size % count == 0)
        return cls(
            tf.constant(members.reshape(rows, -1), tf.int32),
            tf.constant(representatives, tf.int32),
            tf.constant(flat[representatives] != 0, kernel.dtype) if sparse else None,
        )

    def apply(self, kernel: tf.Tensor) -> tf.Tensor:
        """The kernel with the structure imposed on it; same shape."""
        if self.members is not None:
            return self.spread(self.palette(kernel), kernel.shape)
        if self.nonzero is not None:
            return kernel * tf.reshape(self.nonzero, kernel.shape)
        return tf.identity(kernel)

    def palette(self, kernel: tf.Tensor) -> tf.Tensor:
        """What the representatives of a kernel hold, entry by entry."""
        return tf.gather(tf.reshape(kernel, [-1]), self.representatives)

    def spread(self, palette: tf.Tensor, shape: Any) -> tf.Tensor:
        """A kernel of the given shape whose weights are read from a palette."""
        if self.nonzero is not None:
            palette = palette * self.nonzero
        return tf.reshape(_look_up(palette, self.members), shape)


@tf.custom_gradient
def _look_up(palette: tf.Tensor, members: tf.Tensor) -> tuple[tf.Tensor, Any]:
    def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, None]:
        return _sum_by_member(upstream, members, palette.shape[0]), None

    return tf.gather(palette, members), gradient


def _sum_by_member(values: tf.Tensor, members: tf.Tensor, entries: int) -> tf.Tensor:
    """Adds up the values of each palette entry, to the same bits in every run.

    `bincount` takes a tenth of the time of `unsorted_segment_sum` on a CPU, but has no deterministic kernel on a GPU.
    """
    if tf.config.list_logical_devices("GPU"):
        return tf.math.unsorted_segment_sum(values, members, entries)
    rows = tf.math.bincount(members, weights=values, minlength=entries, maxlength=entries, axis=-1)
    return tf.reduce_sum(rows, axis=0)


def _channels(shape: tuple[int, ...], axis: int) -> np.ndarray:
    """Channel number of every weight of a flat kernel."""
    numbers = np.arange(shape[axis]).reshape([-1 if index == axis else 1 for index in range(len(shape))])
    return np.broadcast_to(numbers, shape).reshape(-1)
