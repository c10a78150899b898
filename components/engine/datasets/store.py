"""The `Dataset` directory that flows between stages: four splits as memory-mapped arrays, and one element spec."""

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from collabopt.components.engine.datasets.batches import batches_of
from collabopt.components.engine.datasets.splits import SPLIT_NAMES, Samples, Splits
from collabopt.components.engine.errors import CollaboptError

SPEC_FILE = "dataset.json"
IN_MEMORY_BYTES = 256 * 2**20


class DatasetSpec(BaseModel):
    """The element spec and origin of a stored data set.

    Attributes:
        source: Where it came from: a path, a URI or the name of an example.
        feature_shape: Shape of one sample's features.
        feature_dtype: Type as stored; models are fed float32.
        label_shape: Shape of one sample's label; empty for a scalar.
        label_dtype: Type of the labels.
        scale: Models are fed `features * scale + offset`.
        offset: See `scale`.
        seed: Seed of the splits.
        sizes: Split name -> number of samples.
        digest: SHA-256 over all arrays of all splits.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    source: str
    feature_shape: tuple[int, ...]
    feature_dtype: str
    label_shape: tuple[int, ...]
    label_dtype: str
    scale: float
    offset: float
    seed: int
    sizes: dict[str, int]
    digest: str


class StoredDataset:
    """A data set on disk.

    Attributes:
        directory: Where it lies.
        spec: Its element spec.
    """

    def __init__(self, directory: str | Path, *, in_memory_bytes: int = IN_MEMORY_BYTES) -> None:
        """Opens a directory written by `write_dataset`.

        Args:
            directory: Where it lies.
            in_memory_bytes: Splits up to this size as float32 are held in memory by `batches`; from larger ones every
                batch is read where it lies.

        Raises:
            CollaboptError: There is no data set in it.
        """
        self.directory = Path(directory)
        self._in_memory_bytes = in_memory_bytes
        try:
            self.spec = DatasetSpec.model_validate_json((self.directory / SPEC_FILE).read_bytes())
        except (FileNotFoundError, ValidationError) as error:
            raise CollaboptError(
                f"this is not a collabopt data set: {SPEC_FILE} is missing or does not read",
                where=str(directory),
                todo="pass the output of load_dataset",
            ) from error

    def samples(self, split: str) -> Samples:
        """The samples of a split as stored, memory-mapped.

        Raises:
            CollaboptError: There is no such split.
        """
        if split not in self.spec.sizes:
            raise CollaboptError(
                f"there is no split '{split}'", where=str(self.directory), todo=f"splits: {', '.join(SPLIT_NAMES)}"
            )
        return Samples(
            np.load(self.directory / f"{split}-features.npy", mmap_mode="r", allow_pickle=False),
            np.load(self.directory / f"{split}-labels.npy", mmap_mode="r", allow_pickle=False),
        )

    def inputs(self, split: str, limit: int | None = None) -> np.ndarray:
        """The first `limit` features of a split as the model wants them: `[n, *feature_shape]` float32, scaled."""
        return self._scaled(self.samples(split).features[:limit])

    def labels(self, split: str, limit: int | None = None) -> np.ndarray:
        """The first `limit` labels of a split, `[n, *label_shape]`."""
        return np.asarray(self.samples(split).labels[:limit])

    def representative(self, limit: int) -> Iterator[list[np.ndarray]]:
        """The first `limit` calibration samples, one `[1, *feature_shape]` float32 batch at a time."""
        for sample in self.samples("calibration").features[:limit]:
            yield [self._scaled(sample[np.newaxis])]

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        augment: Callable[[Any, Any], tuple[Any, Any]] | None = None,
    ) -> Any:
        """A split as a `tf.data.Dataset` of (features float32 `[b, ...]`, labels `[b, ...]`) batches.

        Args:
            split: Name of the split.
            batch_size: Samples per batch; the last one may be smaller.
            shuffle_seed: Reshuffles every epoch, deterministically: two data sets made with one seed (and one global
                seed of TensorFlow) give the same epochs. None keeps the stored order.
            augment: Applied to every batch of tensors.

        Raises:
            CollaboptError: There is no such split.
        """
        return batches_of(
            self.samples(split),
            self._scaled,
            batch_size,
            shuffle_seed=shuffle_seed,
            augment=augment,
            in_memory_bytes=self._in_memory_bytes,
        )

    def _scaled(self, features: np.ndarray) -> np.ndarray:
        values = np.asarray(features, dtype=np.float32)
        if self.spec.scale != 1.0 or self.spec.offset != 0.0:
            values = values * np.float32(self.spec.scale) + np.float32(self.spec.offset)
        return values


def write_dataset(splits: Splits, directory: str | Path, *, source: str, seed: int) -> DatasetSpec:
    """Writes four splits to a directory; one that held a data set before holds the new one then.

    Everything is checked before anything is written, and `dataset.json`, without which no data set opens, is written
    last: whatever fails, no half of a data set can be mistaken for one.

    Args:
        splits: What to write; every split must have at least one sample and the same element shapes and types.
        directory: Created if it does not exist.
        source: Origin, for the record.
        seed: Seed that the splits were made with, for the record.

    Returns:
        The spec as written.

    Raises:
        CollaboptError: A split is missing or empty, splits differ in shape or type, or values are no finite numbers.
    """
    for name in SPLIT_NAMES:
        _check_split(name, splits.samples.get(name), source)
    arrays = {
        f"{name}-{part}": _as_stored(getattr(splits.samples[name], part))
        for name in SPLIT_NAMES
        for part in ("features", "labels")
    }
    _check_same_elements(arrays, source)
    digest = hashlib.sha256()
    for name, array in arrays.items():
        digest.update(f"{name.replace('-', '/')}/{array.dtype}/{array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    features, labels = arrays["train-features"], arrays["train-labels"]
    spec = DatasetSpec(
        source=source,
        feature_shape=features.shape[1:],
        feature_dtype=str(features.dtype),
        label_shape=labels.shape[1:],
        label_dtype=str(labels.dtype),
        scale=splits.scale,
        offset=splits.offset,
        seed=seed,
        sizes={name: len(splits.samples[name]) for name in SPLIT_NAMES},
        digest=digest.hexdigest(),
    )
    _write_files(Path(directory), arrays, spec.model_dump_json(indent=2) + "\n")
    return spec


def _write_files(directory: Path, arrays: dict[str, np.ndarray], spec: str) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=directory) as partial:
        for name, array in arrays.items():
            np.save(Path(partial) / f"{name}.npy", array, allow_pickle=False)
        (Path(partial) / SPEC_FILE).write_text(spec, encoding="utf-8")
        (directory / SPEC_FILE).unlink(missing_ok=True)
        for name in arrays:
            os.replace(Path(partial) / f"{name}.npy", directory / f"{name}.npy")
        os.replace(Path(partial) / SPEC_FILE, directory / SPEC_FILE)


def _as_stored(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


def _check_split(name: str, samples: Samples | None, source: str) -> None:
    if samples is None or len(samples) == 0:
        raise CollaboptError(
            f"the {name} split is empty",
            where=source,
            todo="supply more samples, or change the shares of the splits",
        )
    if len(samples.labels) != len(samples.features):
        raise CollaboptError(
            f"the {name} split has {len(samples.features)} samples but {len(samples.labels)} labels",
            where=source,
            todo="supply one label for every sample",
        )
    for part, array in (("features", samples.features), ("labels", samples.labels)):
        if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
            raise CollaboptError(
                f"{part} of the {name} split must be numbers of at most 64 bits, but have type {array.dtype}",
                where=source,
                todo="store text labels as class indices, and features as integers or floats",
            )
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise CollaboptError(
                f"{part} of the {name} split contain NaN or infinity",
                where=source,
                todo="remove or impute those samples; models are fed float32, whose largest number is 3.4e38",
            )


def _check_same_elements(arrays: dict[str, np.ndarray], source: str) -> None:
    for name, array in arrays.items():
        split, part = name.split("-")
        train = arrays[f"train-{part}"]
        if (array.shape[1:], array.dtype) != (train.shape[1:], train.dtype):
            raise CollaboptError(
                f"{part} of {split} are {list(array.shape[1:])} {array.dtype} a sample, "
                f"but those of train are {list(train.shape[1:])} {train.dtype}",
                where=source,
                todo="give every split the same shape and type",
            )
