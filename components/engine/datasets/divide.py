"""Deterministic, disjoint, class-balanced splits."""

from collections.abc import Mapping

import numpy as np

from collabopt.components.engine.datasets.source import Source
from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings


def divide(source: Source, settings: DatasetSettings, where: str) -> Splits:
    """Divides a source into the four splits; no row of the pool goes into two of them.

    The pool is put in a random order (`settings.seed`), in which it is then cut: `test`, `validation`, `calibration`,
    and `train` at the end, so that another `train_share` changes `train` alone. A split that the source has of its own
    is taken whole instead. Where labels are one integer a sample the order is stratified: the classes of every split,
    and of the first samples of every split, are mixed as in the whole, give or take one or two samples a class.

    Args:
        source: What to divide.
        settings: Seed and shares.
        where: Name of the source, for messages.

    Raises:
        CollaboptError: A split would be empty.
    """
    order = _mixed_order(source.pool.labels, settings.seed)
    samples: dict[str, Samples] = {}
    start = 0
    for name, size in _sizes(len(order), source.own, settings, where).items():
        if name in source.own:
            own = source.own[name]
            samples[name] = own.take(_mixed_order(own.labels, settings.seed))
        else:
            samples[name] = source.pool.take(order[start : start + size])
            start += size
    return Splits(samples, scale=source.scale, offset=source.offset)


def thin_train(splits: Splits, settings: DatasetSettings) -> Splits:
    """Keeps `train_share` of the train split, chosen by `settings.seed`, and leaves every other split as it is."""
    train = splits.samples["train"]
    kept = _share(len(train), settings.train_share)
    rows = np.sort(_mixed_order(train.labels, settings.seed)[:kept])
    return Splits({**splits.samples, "train": train.take(rows)}, scale=splits.scale, offset=splits.offset)


def _sizes(pool_size: int, own: Mapping[str, Samples], settings: DatasetSettings, where: str) -> dict[str, int]:
    """Samples of the pool that go into each split, in the order in which they are cut; 0 for the source's own."""
    test = 0 if "test" in own else _share(pool_size, settings.test_share)
    rest = pool_size - test
    validation = 0 if "validation" in own else _share(rest, settings.validation_share)
    calibration = 0
    if "calibration" not in own:
        calibration = min(_share(rest, settings.calibration_share), settings.calibration_samples)
    train = _share(max(rest - validation - calibration, 0), settings.train_share)
    sizes = {"test": test, "validation": validation, "calibration": calibration, "train": train}
    for name, size in sizes.items():
        if size == 0 and name not in own:
            raise CollaboptError(
                f"the {name} split is empty: {pool_size} samples are too few for the shares "
                f"test={settings.test_share}, validation={settings.validation_share}, "
                f"calibration={settings.calibration_share}, train={settings.train_share}",
                where=where,
                todo=f"supply more samples, change the shares, or supply a {name} split",
            )
    return sizes


def _share(count: int, share: float) -> int:
    return int(count * share + 0.5)


def _mixed_order(labels: np.ndarray, seed: int) -> np.ndarray:
    """Rows in random order, stratified where labels `[n]` are integers.

    The shuffled rows of a class of k are placed one in each k-th part of the unit interval, all classes are sorted
    together, and so any stretch of the order holds every class in proportion. With a label of its own for every row
    that is a plain shuffle.
    """
    random = np.random.default_rng(seed)
    order = random.permutation(len(labels))
    if labels.ndim != 1 or labels.dtype.kind not in "iu" or not len(labels):
        return order
    _, classes, counts = np.unique(labels[order], return_inverse=True, return_counts=True)
    by_class = np.argsort(classes, kind="stable")
    rank = np.empty(len(labels), dtype=np.int64)
    rank[by_class] = np.arange(len(labels)) - np.repeat(np.cumsum(counts) - counts, counts)
    position = (rank + random.random(len(labels))) / counts[classes]
    return order[np.argsort(position, kind="stable")]
