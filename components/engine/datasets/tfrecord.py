"""TFRecord files of `tf.train.Example`."""

import glob
from pathlib import Path

import numpy as np

from collabopt.components.engine.datasets.feature_spec import RecordSpec
from collabopt.components.engine.datasets.record_field import decode_field
from collabopt.components.engine.datasets.source import Source, checked_samples
from collabopt.components.engine.datasets.split_folders import split_folders
from collabopt.components.engine.datasets.splits import Samples
from collabopt.components.engine.errors import CollaboptError

PATTERN = "*.tfrecord*"


def find_records(path: Path, where: str) -> dict[str, list[Path]]:
    """Split -> TFRecord files, sorted by name; a source without splits has `train` alone.

    Args:
        path: A file, a glob pattern, a directory of `*.tfrecord*` files, or one with folders `train`, `test`,
            `validation`, `calibration` of such files.
        where: The source as the user gave it, for messages.

    Returns:
        Empty if a directory has no TFRecord files.

    Raises:
        CollaboptError: Folders are named after splits, but not all of them are or have files.
    """
    if path.is_file():
        return {"train": [path]}
    if not path.is_dir():
        return {"train": sorted(Path(match) for match in glob.glob(str(path)) if Path(match).is_file())}
    files = sorted(path.glob(PATTERN))
    if files:
        return {"train": files}
    if not any(path.glob(f"*/{PATTERN}")):
        return {}
    splits = {split: sorted(folder.glob(PATTERN)) for split, folder in split_folders(path, where).items()}
    empty = [split for split, found in splits.items() if not found]
    if not splits or empty:
        raise CollaboptError(
            f"there are no TFRecord files for {empty[0] if empty else 'train'}",
            where=where,
            todo=f"put files named {PATTERN} into this directory, or into folders train, test, validation of it",
        )
    return splits


def read_records(files: dict[str, list[Path]], spec: RecordSpec, where: str) -> Source:
    """Reads TFRecord files; those named `*.gz` are decompressed.

    Args:
        files: Split -> files.
        spec: How features and labels lie in a record.
        where: The source as the user gave it, for messages.

    Raises:
        CollaboptError: A file is damaged or no TFRecord, or a record does not match the spec; the message names the
            file and the number of the record, from 0.
    """
    splits = {split: _read_split(split, paths, spec, where) for split, paths in files.items()}
    return Source(splits.pop("train"), splits)


def _read_split(split: str, paths: list[Path], spec: RecordSpec, where: str) -> Samples:
    features: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for path in paths:
        _read_file(path, spec, features, labels)
    if not features:
        raise CollaboptError(f"there are no records for {split}", where=where, todo="supply files with records")
    return checked_samples(np.stack(features), np.stack(labels), name=split, where=where)


def _read_file(path: Path, spec: RecordSpec, features: list[np.ndarray], labels: list[np.ndarray]) -> None:
    import tensorflow as tf
    from google.protobuf.message import DecodeError

    records = tf.data.TFRecordDataset(str(path), compression_type="GZIP" if path.suffix == ".gz" else "")
    number = 0
    try:
        for number, record in enumerate(records.as_numpy_iterator()):
            example = tf.train.Example.FromString(record)
            name = f"{path}, record {number}"
            features.append(decode_field(example, spec.features, name=name))
            labels.append(decode_field(example, spec.label, name=name))
    except tf.errors.DataLossError as error:
        raise CollaboptError(
            f"the file is damaged or no TFRecord file: {error.message}",
            where=str(path),
            todo="copy or write it again; compressed files must be named *.gz",
        ) from error
    except DecodeError as error:
        raise CollaboptError(
            "a record is no tf.train.Example",
            where=f"{path}, record {number}",
            todo="write records with tf.train.Example(...).SerializeToString()",
        ) from error
