"""What a reader of a file format hands over: samples to split, and the splits that the source already has."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from collabopt.components.engine.datasets.splits import Samples
from collabopt.components.engine.errors import CollaboptError


@dataclass(frozen=True)
class Source:
    """A data set as its source has it.

    Attributes:
        pool: Samples that the missing splits, and always `train`, are drawn from.
        own: Splits that the source has of its own, by name.
        scale: Models are fed `features * scale + offset`.
        offset: See `scale`.
    """

    pool: Samples
    own: Mapping[str, Samples] = field(default_factory=dict)
    scale: float = 1.0
    offset: float = 0.0


def checked_samples(features: np.ndarray, labels: np.ndarray, *, name: str, where: str) -> Samples:
    """Pairs features `[n, ...]` with labels `[n, ...]`.

    Features of 64-bit floats are kept as float32, which is what models are fed. One integer a sample, `[n]` or
    `[n, 1]`, becomes int64 `[n]`.

    Args:
        features: Numbers.
        labels: Numbers; for classification class indices.
        name: What the source calls them, for messages.
        where: The source.

    Raises:
        CollaboptError: They are not numbers, have no samples axis, or differ in length.
    """
    for part, array in (("features", features), ("labels", labels)):
        if array.dtype.kind not in "biuf":
            raise CollaboptError(
                f"{part} of '{name}' must be numbers, but have type {array.dtype}",
                where=where,
                todo="store text labels as class indices, and features as integers or floats",
            )
        if array.ndim == 0:
            raise CollaboptError(
                f"{part} of '{name}' are a single number", where=where, todo="the first axis must count the samples"
            )
    if len(features) != len(labels):
        raise CollaboptError(
            f"'{name}' has {len(features)} samples but {len(labels)} labels",
            where=where,
            todo="supply one label for every sample",
        )
    if features.dtype == np.float64:
        with np.errstate(over="ignore"):  # what overflows is infinite, and infinity is refused when it is written
            features = features.astype(np.float32)
    if labels.dtype.kind in "iu" and labels.shape[1:] in ((), (1,)):
        labels = labels.reshape(len(labels)).astype(np.int64)
    return Samples(features, labels)
