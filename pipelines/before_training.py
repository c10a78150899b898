"""What commands that look at a model before it is trained have in common: what they read, where they write."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.prescreen.baseline import BaselineSource
from collabopt.components.engine.settings import DatasetSettings, ImportSettings, parse_settings
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import parameters_of
from collabopt.pipelines.preflight import check_engine, check_task_module, existing_source
from collabopt.pipelines.tree import ROOT

# The pipeline that has every stage, and so every leaf.
EVERYTHING = "exhaustive"


def plan_baseline(model: str, data: str, task: str | None, given: Mapping[str, Any]) -> BaselineSource:
    """Checks that the baseline and its data can be read here; changes nothing.

    Args:
        model: Path of the trained model, or `example://NAME`.
        data: Path of the data, or `example://NAME`.
        task: Import path of the task; None for the default.
        given: Arguments of the pipeline, as `pipeline_arguments` gives them.

    Raises:
        CollaboptError: The first problem that is found.
    """
    check_engine()
    sources = {"model": existing_source(model, "--model"), "data": existing_source(data, "--data")}
    if task is not None:
        check_task_module(task)
    parameters = {**parameters_of(EVERYTHING), **given}

    def settings(kind: type, technique: str, stage: str) -> Any:
        return parse_settings(kind, {**inputs_of(technique, parameters), **given["settings"].get(stage, {})}, stage)

    return BaselineSource(
        **sources,
        task=task or DEFAULT_TASK,
        dataset_settings=settings(DatasetSettings, "load_dataset", "dataset"),
        import_settings=settings(ImportSettings, "import_model", ROOT),
    )


def output_file(output: Path, name: str, read: Callable[[Path], object], what: str) -> Path:
    """Where a command writes, and that nothing else lies there.

    Args:
        output: A file, or a directory for a file of this name.
        name: See `output`.
        read: Reads an earlier file of this kind; raises `CollaboptError` for any other.
        what: What such a file is, for the error.

    Raises:
        CollaboptError: There is no such directory, or another file is in the way.
    """
    path = (output / name if output.is_dir() else output).absolute()
    if not path.parent.is_dir():
        raise CollaboptError("there is no such directory", where=f"--output {output}", todo="name a file in one")
    if path.exists():
        try:
            read(path)
        except CollaboptError as error:
            raise CollaboptError(
                f"a file that is no earlier {what} is in the way", where=f"--output {output}", todo="name another"
            ) from error
    return path
