"""Predicts what the leaves will weigh and cost, without training."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.policy import Policy, parse_policy
from collabopt.components.engine.prescreen.baseline import BaselineSource, accept_baseline
from collabopt.components.engine.prescreen.recipe import Configuration, Recipe, recipes_over
from collabopt.components.engine.prescreen.records import Prescreen, read_prescreen
from collabopt.components.engine.records import PRESCREEN_FILE
from collabopt.pipelines import parameters_of, stages_of
from collabopt.pipelines.arguments import check_settings, pipeline_arguments
from collabopt.pipelines.before_training import EVERYTHING, output_file, plan_baseline
from collabopt.pipelines.grid import Grid, parse_grid
from collabopt.pipelines.output_directory import LEAVES
from collabopt.pipelines.tree import TREE


@dataclass(frozen=True)
class PlannedPrescreen:
    """What to predict, all of it checked.

    Attributes:
        source: The baseline and its data.
        grid: Axis -> its values.
        recipes: Leaf -> recipe -> its configuration.
        policy: What leaves are judged by; None for nothing.
        against: Output directory of a run, whose leaves are compared with their predictions; None for none.
        output: File for the predictions.
    """

    source: BaselineSource
    grid: Grid
    recipes: Mapping[str, Mapping[Recipe, Configuration]]
    policy: Policy | None
    against: Path | None
    output: Path


def plan_prescreen(
    *,
    model: str,
    data: str,
    task: str | None = None,
    grid: Iterable[str] = (),
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    plan: Path | None = None,
    policy: Path | None = None,
    against: Path | None = None,
    output: Path = Path(PRESCREEN_FILE),
) -> PlannedPrescreen:
    """Turns what the command line says into a prescreen that is ready to start; changes nothing.

    Args:
        model: Path of the trained model, or `example://NAME`.
        data: Path of the data, or `example://NAME`.
        task: Import path of the task; None for the default.
        grid: `axis=value,value` each.
        settings: `stage.parameter=value` each.
        parameters: `parameter=value` each, of the pipeline.
        plan: File with settings of single layers; None for none.
        policy: File with the gate's policy; None for none.
        against: Output directory of a run; None for none.
        output: File for the predictions, or a directory for `prescreen.json`.

    Raises:
        CollaboptError: The first problem that is found.
    """
    defaults = parameters_of(EVERYTHING)
    given = pipeline_arguments(
        pipeline=EVERYTHING,
        model=model,
        data=data,
        task=task,
        policy=policy,
        settings=settings,
        parameters=parameters,
        plan=plan,
    )
    overrides: dict[str, dict[str, object]] = given["settings"]  # type: ignore[assignment]
    axes = parse_grid(grid, defaults, given, overrides)
    for point in _one_at_a_time(axes):
        options = dict.fromkeys(axes.keys() - given.keys(), "--grid")
        check_settings(overrides, {**defaults, **given, **point}, stages_of(EVERYTHING), options)
    output = output_file(output, PRESCREEN_FILE, read_prescreen, "prediction")
    source = plan_baseline(model, data, task, given)
    wanted = None if policy is None else parse_policy(str(given["policy"]))
    if against is not None and not (against / LEAVES).is_dir():
        raise CollaboptError(
            f"there is no {LEAVES}/ in this directory",
            where=f"--against {against}",
            todo="name the output directory of a finished run",
        )
    ways = {leaf.name: [(stage.name, stage.technique.name) for stage in TREE.path(leaf.name)] for leaf in TREE.leaves()}
    accelerator = wanted.accelerator if wanted else None
    return PlannedPrescreen(
        source=source,
        grid=axes,
        recipes=recipes_over(ways, axes, {**defaults, **given}, overrides, accelerator),
        policy=wanted,
        against=against,
        output=output,
    )


def run_prescreen(planned: PlannedPrescreen, progress: Callable[[int, int], None]) -> Prescreen:
    """Predicts, compares, and writes the predictions.

    Args:
        planned: What to predict.
        progress: Called with the number of files that are done, and of all.

    Returns:
        The predictions, as they were written.

    Raises:
        CollaboptError: Model, data, policy or the leaves to compare with are not what they should be.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    sys.path.insert(0, os.getcwd())  # where a task may lie
    from collabopt.components.engine.prescreen.compare import check_same_origin, compare
    from collabopt.components.engine.prescreen.judgement import missed_goals
    from collabopt.components.engine.prescreen.predict import predict
    from collabopt.components.engine.prescreen.records import write_prescreen
    from collabopt.components.engine.versions import versions

    with tempfile.TemporaryDirectory(prefix="collabopt-prescreen-") as scratch:
        log = Path(scratch) / "log"
        accepted = accept_baseline(planned.source, Path(scratch), policy=planned.policy, log=log)
        reports = _trained(planned.against)
        check_same_origin(reports, accepted.dataset_digest, planned.source.model)
        predictions = predict(
            planned.recipes,
            accepted.directory,
            accepted.dataset,
            allow_lambda=planned.source.import_settings.allow_lambda,
            log=log,
            progress=progress,
        )
    if planned.policy is not None:
        predictions = [
            each.model_copy(update={"missed": missed_goals(each, planned.policy, accepted.sizes)})
            for each in predictions
        ]
    prescreen = Prescreen(
        model=planned.source.model,
        data=planned.source.data,
        dataset_digest=accepted.dataset_digest,
        grid=planned.grid,
        baseline=dict(accepted.sizes),
        policy=planned.policy,
        predictions=predictions,
        files=len({recipe for of_leaf in planned.recipes.values() for recipe in of_leaf}),
        comparisons=compare(predictions, reports),
        versions=versions(),
    )
    write_prescreen(prescreen, planned.output)
    return prescreen


def _trained(directory: Path | None) -> list[Any]:
    if directory is None:
        return []
    from collabopt.pipelines.outcome import leaves_below

    return [leaf.report for leaf in leaves_below(directory / LEAVES)]


def _one_at_a_time(grid: Grid) -> Iterable[dict[str, int | float]]:
    """Points that have every value of the grid; what is legal of one axis does not depend on the other."""
    for axis, values in grid.items():
        for value in values:
            yield {**{name: others[0] for name, others in grid.items()}, axis: value}
