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
from collabopt.components.engine.prescreen.baseline import BaselineSource, accept_baseline
from collabopt.components.engine.sensitivity.proposal import SMALL_SHARE, propose
from collabopt.components.engine.sensitivity.records import Sensitivity, Trial
from collabopt.pipelines.arguments import pipeline_arguments
from collabopt.pipelines.before_training import EVERYTHING, output_file, plan_baseline

PLAN_FILE = "plan.yaml"


@dataclass(frozen=True)
class PlannedSensitivity:
    """What to scan, all of it checked.

    Attributes:
        source: The baseline and its data.
        tolerance: Drop that one layer alone may cause, as a share of the baseline.
        samples: Calibration samples to measure on, at most.
        output: File for the plan.
    """

    source: BaselineSource
    tolerance: float
    samples: int
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
        pipeline=EVERYTHING, model=model, data=data, task=task, settings=settings, parameters=parameters
    )
    output = output_file(output, PLAN_FILE, read_layer_plan, "plan")
    return PlannedSensitivity(plan_baseline(model, data, task, given), tolerance, samples, output)


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
    from collabopt.components.engine.sensitivity.scan import scan
    from collabopt.components.engine.versions import versions

    with tempfile.TemporaryDirectory(prefix="collabopt-sensitivity-") as scratch:
        log = Path(scratch) / "log"
        baseline = accept_baseline(planned.source, Path(scratch), log=log)
        accepted()
        found = scan(
            baseline.directory,
            baseline.dataset,
            planned.source.task,
            samples=planned.samples,
            allow_lambda=planned.source.import_settings.allow_lambda,
            log=log,
        )
    sensitivity = Sensitivity(
        **dict(found),
        model=planned.source.model,
        data=planned.source.data,
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
    pruned = [f"{each.layer}  {_drops(each.pruned)}" for each in found.layers if each.pruned]
    clustered = [f"{each.layer}  {_drops(each.clustered)}" for each in found.layers if each.clustered]
    measured = f"Drops of {found.metric} in per cent of the baseline's, by"
    comments = {
        "": head,
        "prune": "\n".join([f"{measured} sparsity:", *pruned]),
        "cluster": "\n".join([f"{measured} number of clusters:", *clustered]),
    }
    return plan_yaml(found.plan, comments)


def _drops(trials: Iterable[Trial]) -> str:
    return ", ".join(f"{each.value:g}: {'-' if each.drop is None else f'{100 * each.drop:.1f}'}" for each in trials)
