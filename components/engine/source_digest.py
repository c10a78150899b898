"""What a source holds, as a digest: the part of a run's input that Kubeflow's cache cannot see by itself.

Kubeflow Pipelines finds a cached result by image, command and arguments. A path stays the same when what lies there
changes, and would be answered with results for what lay there before. So `configure`, which is never cached, hands the
digest of a source to the component that reads it, as one more argument; that component checks that what it has read is
still the same.
"""

import glob
import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import EXAMPLE_SCHEME, GCS_SCHEME, TASK_SOURCES, local_path, stored_objects
from collabopt.components.engine.training.task import Task


def model_digest(source: str) -> str:
    """Digest of a trained model: of a file or of all files of a directory, local or `gs://`, or of an example.

    Raises:
        CollaboptError: There is nothing at the source, or it cannot be read.
    """
    if source.startswith(EXAMPLE_SCHEME):
        from collabopt.components.engine.models.examples import ARCHITECTURE_VERSION

        return _digest([source, str(ARCHITECTURE_VERSION)])
    return _digest_of_files(source)


def data_digest(source: str, task: Task) -> str:
    """Digest of a data set: of its files, local or `gs://`, of an example, or of what the task calls its version.

    Args:
        source: Where the data are; see the load_dataset component.
        task: Names the version of its own data, for the source `task`.

    Raises:
        CollaboptError: There is nothing at the source, or it cannot be read.
    """
    if source in TASK_SOURCES:
        return _digest(["task", task.data_version() if task.data_version else ""])
    if source.startswith(EXAMPLE_SCHEME):
        from collabopt.components.engine.datasets.examples import VERSION, example_files

        return _digest([source, str(VERSION), *_contents((path.name, path) for path in example_files(source))])
    return _digest_of_files(source)


def check_unchanged(source: str, expected: str, found: str) -> None:
    """Fails where a source no longer holds what it held when the run was configured.

    Args:
        source: The source.
        expected: Its digest then.
        found: Its digest now.

    Raises:
        CollaboptError: They differ.
    """
    if found != expected:
        raise CollaboptError(
            "the source has changed since the run was configured",
            where=source,
            todo="start the run again when nobody writes there; results of this one would mix two versions",
        )


def _digest_of_files(source: str) -> str:
    if source.startswith(GCS_SCHEME):
        # Checksums of the content, not generations: the same bytes uploaded again are the same.
        return _digest(
            part
            for name, blob in sorted(stored_objects(source).items())
            for part in (name, str(blob.size), str(blob.crc32c), str(blob.md5_hash))
        )
    return _digest(_contents(_local_files(source)))


def _local_files(source: str) -> Iterator[tuple[str, Path]]:
    if glob.has_magic(source) and not Path(source).exists():
        found = sorted(Path(match) for match in glob.glob(source) if Path(match).is_file())
        if not found:
            raise CollaboptError("no file matches the pattern", where=source, todo="check the pattern")
        yield from ((str(path), path) for path in found)
        return
    path = local_path(source)
    if path.is_dir():
        yield from ((str(file.relative_to(path)), file) for file in _files_below(path, (path.resolve(),)))
    else:
        yield "", path


def _files_below(directory: Path, above: tuple[Path, ...]) -> Iterator[Path]:
    """All files in a fixed order. Links are followed, but not into a directory that one has come from."""
    for path in sorted(directory.iterdir()):
        if not path.is_dir():
            yield path
        elif path.resolve() not in above:
            yield from _files_below(path, (*above, path.resolve()))


def _contents(files: Iterable[tuple[str, Path]]) -> Iterator[str]:
    for name, path in files:
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise CollaboptError(f"this file cannot be read: {error.strerror}", where=str(path)) from error
        yield from (name, content)


def _digest(parts: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode("utf-8", "surrogateescape") + b"\0")
    return digest.hexdigest()
