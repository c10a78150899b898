"""Finds out what each layer bears alone, and writes the plan that follows from it."""

import math
import os
import sys
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_plan import plan_yaml, read_layer_plan
from collabopt.components.engine.sensitivity.proposal import SMALL_SHARE, propose
from collabopt.components.engine.sensitivity.records import Sensitivity
from collabopt.components.engine.settings import DatasetSettings, ImportSettings
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import parameters_of
from collabopt.pipelines.arguments import pipeline_arguments
from collabopt.pipelines.preflight import check_engine, check_task_module, existing_source
from collabopt.pipelines.prescreening import settings_of_stage
from collabopt.pipelines.tree import ROOT

# The pipeline that has every stage.
_PIPELINE = "exhaustive"


@dataclass(frozen=True)
class PlannedSensitivity:
    """What to scan, all of it checked.

    Attributes:
        model: Source of the model.
        data: Source of the data.
        task: Import path of the task.
        tolerance: Drop that one layer alone may cause, as a share of the baseline.
        samples: Calibration samples to measure on, at most.
        dataset_settings: How to read and split the data.
        import_settings: How to accept the model.
        output: File for the plan.
    """

    model: str
    data: str
    task: str
    tolerance: float
    samples: int
    dataset_settings: DatasetSettings
    import_settings: ImportSettings
    output: Path


def plan_sensitivity(
    *,
    model: str,
    data: str,
    task: str | None = None,
    tolerance: float,
    samples: int,
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    output: Path,
) -> PlannedSensitivity:
    """Turns what the command line says into a scan that is ready to start; changes nothing.

    Args:
        model: Path of the trained model, or `example://NAME`.
        data: Path of the data, or `example://NAME`.
        task: Import path of the task; None for the default.
        tolerance: Drop that one layer alone may cause, as a share of the baseline.
        samples: Calibration samples to measure on, at most.
        settings: `stage.parameter=value` each.
        parameters: `parameter=value` each, of the pipeline.
        output: File for the plan.

    Raises:
        CollaboptError: The first problem that is found.
    """
    if not (math.isfinite(tolerance) and 0 <= tolerance < 1):
        raise CollaboptError(
            "the tolerance is a share of the baseline, from 0 to below 1",
            where=f"--tolerance {tolerance}",
            todo="write 0.01 for one per cent",
        )
    given = pipeline_arguments(
        pipeline=_PIPELINE, model=model, data=data, task=task, settings=settings, parameters=parameters
    )
    output = _file(output)
    check_engine()
    sources = {"model": existing_source(model, "--model"), "data": existing_source(data, "--data")}
    if task is not None:
        check_task_module(task)
    everything = {**parameters_of(_PIPELINE), **given}
    overrides: dict[str, dict[str, object]] = given["settings"]  # type: ignore[assignment]
    return PlannedSensitivity(
        **sources,
        task=task or DEFAULT_TASK,
        tolerance=tolerance,
        samples=samples,
        dataset_settings=settings_of_stage(DatasetSettings, "load_dataset", "dataset", everything, overrides),
        import_settings=settings_of_stage(ImportSettings, "import_model", ROOT, everything, overrides),
        output=output,
    )


def run_sensitivity(planned: PlannedSensitivity, accepted: Callable[[], None]) -> Sensitivity:
    """Scans, proposes, and writes the plan.

    Args:
        planned: What to scan.
        accepted: Called when model and data are loaded.

    Returns:
        What was found, with the plan as it was written.

    Raises:
        CollaboptError: Model or data are not what they should be.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path.insert(0, os.getcwd())  # where a task may lie
    from collabopt.components.engine.prescreen.baseline import accept_baseline
    from collabopt.components.engine.sensitivity.scan import scan
    from collabopt.components.engine.versions import versions

    with tempfile.TemporaryDirectory(prefix="collabopt-sensitivity-") as scratch:
        log = Path(scratch) / "log"
        baseline = accept_baseline(
            model=planned.model,
            data=planned.data,
            task=planned.task,
            dataset_settings=planned.dataset_settings,
            import_settings=planned.import_settings,
            policy=None,
            directory=Path(scratch),
            log=log,
        )
        accepted()
        found = scan(
            baseline.directory,
            baseline.dataset,
            planned.task,
            samples=planned.samples,
            allow_lambda=planned.import_settings.allow_lambda,
            log=log,
        )
    sensitivity = Sensitivity(
        **dict(found),
        model=planned.model,
        data=planned.data,
        tolerance=planned.tolerance,
        plan=propose(found.layers, planned.tolerance),
        versions=versions(),
    )
    planned.output.write_text(_plan_text(sensitivity), encoding="utf-8")
    return sensitivity


def _plan_text(found: Sensitivity) -> str:
    """The plan file, which says how it came about."""
    head = (
        f"Proposed by collabopt sensitivity for {found.model}.\n"
        f"Each layer alone, without training, costs at most {found.tolerance:g} of the baseline's {found.metric} "
        f"({found.baseline:.4g} on {found.samples} calibration samples);\n"
        f"a layer that bears nothing is excluded below {SMALL_SHARE:.0%} of the weights,\n"
        "else it gets the gentlest value.\n"
        "Use it with: collabopt run --plan FILE"
    )
    return plan_yaml(found.plan, {"": head})


def _file(output: Path) -> Path:
    """Where the plan goes, and that nothing else lies there."""
    path = (output / "plan.yaml" if output.is_dir() else output).absolute()
    if not path.parent.is_dir():
        raise CollaboptError("there is no such directory", where=f"--output {output}", todo="name a file in one")
    if path.exists():
        try:
            read_layer_plan(path)
        except CollaboptError as error:
            raise CollaboptError(
                "a file that is no earlier plan is in the way", where=f"--output {output}", todo="name another"
            ) from error
    return path
