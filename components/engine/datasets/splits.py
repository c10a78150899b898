"""Splits of a data set, in memory."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

SPLIT_NAMES = ("train", "calibration", "validation", "test")


@dataclass(frozen=True)
class Samples:
    """Features and labels that belong together by row.

    Attributes:
        features: `[n, ...]`, any real dtype, before scaling.
        labels: `[n, ...]`.
    """

    features: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of samples."""
        return len(self.features)

    def take(self, rows: np.ndarray) -> "Samples":
        """The given rows, in their order."""
        return Samples(self.features[rows], self.labels[rows])


@dataclass(frozen=True)
class Splits:
    """The four splits, by name.

    Attributes:
        samples: Split name -> samples. Fine-tuning sees `train`, quantization ranges come from `calibration`, epochs
            are watched on `validation`, and the figures that decide come from `test` alone.
        scale: The model is fed `features * scale + offset`.
        offset: See `scale`.
    """

    samples: Mapping[str, Samples]
    scale: float = 1.0
    offset: float = 0.0
