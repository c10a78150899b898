"""NumPy archives: `x_train, y_train, x_test, y_test` as in keras.datasets, or `x, y`."""

import zipfile
import zlib
from pathlib import Path

import numpy as np

from collabopt.components.engine.datasets.source import Source, checked_samples
from collabopt.components.engine.datasets.splits import Samples
from collabopt.components.engine.errors import CollaboptError

LAYOUT = (
    "an archive holds x_train, y_train, x_test, y_test (and, if there are such splits, x_validation, y_validation, "
    "x_calibration), or just x, y"
)


def read_npz(path: Path, where: str) -> Source:
    """Reads an `.npz` archive; pickled objects are never loaded.

    With `x_train`, the archive must have a test split; `x_validation` (or `x_val`) and `x_calibration` are optional.
    Pipelines do not read the labels of a calibration split, so they may be missing, and are zeros then, which the scan
    for sensitivity refuses. Other arrays are ignored.

    Args:
        path: The archive.
        where: The source as the user gave it, for messages.

    Raises:
        CollaboptError: It is not an archive, an array is missing or holds Python objects, or lengths differ.
    """
    if not zipfile.is_zipfile(path):
        raise CollaboptError("this file is not an .npz archive", where=where, todo="write it with numpy.savez")
    try:
        with np.load(path, allow_pickle=False) as archive:
            return _read(archive, where)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        # RuntimeError is zipfile's word for encryption and for compression methods that it lacks.
        raise CollaboptError(
            f"the archive does not decompress: {error}", where=where, todo="write it with numpy.savez, or copy it again"
        ) from error


def _read(archive: np.lib.npyio.NpzFile, where: str) -> Source:
    if "x_train" not in archive.files and "x" in archive.files:
        return Source(_pair(archive, "x", "y", where))
    pool = _pair(archive, "x_train", "y_train", where)
    own = {"test": _pair(archive, "x_test", "y_test", where)}
    for short in ("validation", "val"):
        if f"x_{short}" in archive.files and "validation" not in own:
            own["validation"] = _pair(archive, f"x_{short}", f"y_{short}", where)
    if "x_calibration" in archive.files:
        own["calibration"] = _calibration(archive, pool, where)
    return Source(pool, own)


def _calibration(archive: np.lib.npyio.NpzFile, pool: Samples, where: str) -> Samples:
    if "y_calibration" in archive.files:
        return _pair(archive, "x_calibration", "y_calibration", where)
    features = _array(archive, "x_calibration", where)
    unread = np.zeros((features.shape or (0,))[:1] + pool.labels.shape[1:], pool.labels.dtype)
    return checked_samples(features, unread, name="x_calibration", where=where)


def _pair(archive: np.lib.npyio.NpzFile, features: str, labels: str, where: str) -> Samples:
    return checked_samples(
        _array(archive, features, where), _array(archive, labels, where), name=f"{features}, {labels}", where=where
    )


def _array(archive: np.lib.npyio.NpzFile, name: str, where: str) -> np.ndarray:
    if name not in archive.files:
        found = ", ".join(archive.files) or "nothing"
        raise CollaboptError(f"the archive has no array '{name}'; it holds {found}", where=where, todo=LAYOUT)
    try:
        return archive[name]
    except ValueError as error:
        raise CollaboptError(
            f"array '{name}' cannot be read: {error}",
            where=where,
            todo="Python objects are never loaded; save arrays of numbers, all samples of one shape",
        ) from error
