"""Which weights of a kernel are zero and which are equal, and how training keeps it so.

Weights of one palette entry are tied by reading all of them from one representative, so gradients add up on it as in
TFMOT's clustering with `GradientAggregation.SUM`. That is a look-up as large as the kernel, with no loop over channels
and no comparison of every weight with every centroid.
"""

from dataclasses import dataclass

import numpy as np
import tensorflow as tf


@dataclass(frozen=True)
class Structure:
    """Which weights of a kernel are tied, and which are zero.

    Attributes:
        members: Weight -> number of its palette entry, as long as the flat kernel; None where nothing is tied.
        representatives: Palette entry -> position in the flat kernel of the weight that stands for it.
        nonzero: 0 for what stays zero, else 1: per palette entry where weights are tied, else per weight; None where
            zeros are not kept.
    """

    members: np.ndarray | None
    representatives: np.ndarray | None
    nonzero: np.ndarray | None

    @classmethod
    def of(cls, kernel: np.ndarray, *, sparse: bool, clustered: bool) -> "Structure":
        """Reads the structure off a kernel.

        Args:
            kernel: The kernel; its exact zeros and its equal values count.
            sparse: Keep zeros at their places.
            clustered: Keep equal weights equal.
        """
        flat = kernel.reshape(-1)
        if not clustered:
            return cls(None, None, (flat != 0).astype(kernel.dtype) if sparse else None)
        palette, representatives, members = np.unique(flat, return_index=True, return_inverse=True)
        return cls(
            members.reshape(-1).astype(np.int32),
            representatives.astype(np.int32),
            (palette != 0).astype(kernel.dtype) if sparse else None,
        )

    def apply(self, kernel: tf.Tensor) -> tf.Tensor:
        """The kernel with the structure imposed on it; same shape."""
        flat = tf.reshape(kernel, [-1])
        if self.representatives is not None:
            flat = tf.gather(flat, self.representatives)
        if self.nonzero is not None:
            flat = flat * self.nonzero
        if self.members is not None:
            flat = tf.gather(flat, self.members)
        return tf.reshape(flat, kernel.shape)
