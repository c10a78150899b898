"""From a source to the `Dataset` directory."""

import tempfile
from dataclasses import replace
from pathlib import Path

from collabopt.components.engine.datasets.divide import divide, thin_train
from collabopt.components.engine.datasets.examples import read_example
from collabopt.components.engine.datasets.feature_spec import parse_feature_spec
from collabopt.components.engine.datasets.image_folders import read_image_folders
from collabopt.components.engine.datasets.npz import read_npz
from collabopt.components.engine.datasets.source import Source, checked_samples
from collabopt.components.engine.datasets.splits import SPLIT_NAMES, Splits
from collabopt.components.engine.datasets.store import DatasetSpec, write_dataset
from collabopt.components.engine.datasets.tfrecord import PATTERN, find_records, read_records
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import EXAMPLE_SCHEME, TASK_SOURCES
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.task import Task

KINDS = (
    f"an .npz file, TFRecord files ({PATTERN}), a directory with one folder of images a class, the same under gs://, "
    f"{EXAMPLE_SCHEME}digits, {EXAMPLE_SCHEME}fashion-mnist, or task"
)


def load_dataset(source: str, output: Path, settings: DatasetSettings, task: Task) -> DatasetSpec:
    """Reads a source, divides it into splits, and writes them as a `Dataset` directory.

    Sources: an `.npz` file; a TFRecord file, glob pattern or directory, with `settings.feature_spec`; a directory with
    one folder of images a class; any of them under `gs://`; `example://digits`, `example://fashion-mnist`; `task`,
    whose data the task itself makes.

    Features are stored as they are, and scaled when a model is fed. Files are never scaled unless the settings say so;
    images are bytes, so `scale` = 1/255 is what most models want. Examples and tasks bring a scale of their own, which
    the settings replace where `scale` or `offset` is not at its default.

    The whole set is held in memory while it is read, about twice over.

    Args:
        source: Where the data are.
        output: Directory to write.
        settings: How to read and split them.
        task: Supplies the data for the source `task`.

    Returns:
        The spec as written.

    Raises:
        CollaboptError: The source does not exist, does not read, or is too small to be split.
    """
    splits = _splits_of_task(task, settings) if source in TASK_SOURCES else _splits_of_source(source, settings)
    if (settings.scale, settings.offset) != (1.0, 0.0):
        splits = replace(splits, scale=settings.scale, offset=settings.offset)
    return write_dataset(splits, output, source=source, seed=settings.seed)


def _splits_of_source(source: str, settings: DatasetSettings) -> Splits:
    if source.startswith(EXAMPLE_SCHEME):
        return divide(read_example(source), settings, source)
    if source.startswith("gs://"):
        return divide(_read_bucket(source, settings), settings, source)
    return divide(_read_files(Path(source), settings, source), settings, source)


def _splits_of_task(task: Task, settings: DatasetSettings) -> Splits:
    where = f"task '{task.name}'"
    todo = "give the task a function data(seed) that returns Splits of train, calibration, validation and test"
    if task.data is None:
        raise CollaboptError("this task has no data of its own", where=where, todo=f"name another source, or {todo}")
    splits = task.data(settings.seed)
    if not isinstance(splits, Splits):
        raise CollaboptError(f"the task's data are a {type(splits).__name__}, not Splits", where=where, todo=todo)
    missing = [name for name in SPLIT_NAMES if name not in splits.samples]
    if missing:
        raise CollaboptError(f"the task's data lack the split '{missing[0]}'", where=where, todo=todo)
    checked = {
        name: checked_samples(samples.features, samples.labels, name=name, where=where)
        for name, samples in splits.samples.items()
    }
    return thin_train(replace(splits, samples=checked), settings)


def _read_bucket(source: str, settings: DatasetSettings) -> Source:
    from collabopt.components.engine.fetch import local_copy

    with tempfile.TemporaryDirectory(prefix="collabopt-") as directory:
        path = local_copy(source, Path(directory))
        try:
            return _read_files(path, settings, source)
        except CollaboptError as error:
            where = error.where.replace(str(path), source.rstrip("/"))
            raise CollaboptError(error.what, where=where, todo=error.todo) from error


def _read_files(path: Path, settings: DatasetSettings, where: str) -> Source:
    if path.suffix == ".npz" and path.is_file():
        return read_npz(path, where)
    image_shape = settings.image_height, settings.image_width, settings.image_channels
    is_unknown_file = path.is_file() and not path.match(PATTERN) and not settings.feature_spec
    records = {} if is_unknown_file else find_records(path, where)
    if any(records.values()):
        return read_records(records, parse_feature_spec(settings.feature_spec, image_shape, where), where)
    if path.is_dir():
        return read_image_folders(path, image_shape, where)
    problem = "this is no data set that can be read" if path.exists() else "there is nothing here"
    raise CollaboptError(problem, where=where, todo=f"a source is {KINDS}")
