"""Predicts what the leaves will weigh and cost, without training."""

import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.policy import Policy, parse_policy
from collabopt.components.engine.prescreen.recipe import Configuration, Recipe, recipes_over
from collabopt.components.engine.prescreen.records import Prescreen, read_prescreen
from collabopt.components.engine.records import PRESCREEN_FILE
from collabopt.components.engine.settings import DatasetSettings, ImportSettings, parse_settings
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import parameters_of, stages_of
from collabopt.pipelines.arguments import check_settings, pipeline_arguments
from collabopt.pipelines.grid import Grid, parse_grid
from collabopt.pipelines.output_directory import LEAVES
from collabopt.pipelines.preflight import check_engine, check_task_module, existing_source
from collabopt.pipelines.tree import ROOT, TREE

# The pipeline that has every leaf.
_PIPELINE = "exhaustive"


@dataclass(frozen=True)
class PlannedPrescreen:
    """What to predict, all of it checked.

    Attributes:
        model: Source of the model.
        data: Source of the data.
        task: Import path of the task.
        grid: Axis -> its values.
        recipes: Leaf -> recipe -> its configuration.
        dataset_settings: How to read and split the data.
        import_settings: How to accept the model.
        policy: What leaves are judged by; None for nothing.
        against: Output directory of a run, whose leaves are compared with their predictions; None for none.
        output: File for the predictions.
    """

    model: str
    data: str
    task: str
    grid: Grid
    recipes: Mapping[str, Mapping[Recipe, Configuration]]
    dataset_settings: DatasetSettings
    import_settings: ImportSettings
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
    defaults = parameters_of(_PIPELINE)
    given = pipeline_arguments(
        pipeline=_PIPELINE,
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
        check_settings(overrides, {**defaults, **given, **point}, stages_of(_PIPELINE), options)
    output = _file(output)
    check_engine()
    sources = {"model": existing_source(model, "--model"), "data": existing_source(data, "--data")}
    if task is not None:
        check_task_module(task)
    wanted = None if policy is None else parse_policy(str(given["policy"]))
    if against is not None and not (against / LEAVES).is_dir():
        raise CollaboptError(
            f"there is no {LEAVES}/ in this directory",
            where=f"--against {against}",
            todo="name the output directory of a finished run",
        )
    ways = {leaf.name: [(stage.name, stage.technique.name) for stage in TREE.path(leaf.name)] for leaf in TREE.leaves()}
    everything = {**defaults, **given}
    return PlannedPrescreen(
        **sources,
        task=task or DEFAULT_TASK,
        grid=axes,
        recipes=recipes_over(ways, axes, everything, overrides, wanted.accelerator if wanted else None),
        dataset_settings=settings_of_stage(DatasetSettings, "load_dataset", "dataset", everything, overrides),
        import_settings=settings_of_stage(ImportSettings, "import_model", ROOT, everything, overrides),
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
    from collabopt.components.engine.prescreen.baseline import accept_baseline
    from collabopt.components.engine.prescreen.compare import check_same_origin, compare
    from collabopt.components.engine.prescreen.judgement import missed_goals
    from collabopt.components.engine.prescreen.predict import predict
    from collabopt.components.engine.prescreen.records import write_prescreen
    from collabopt.components.engine.versions import versions

    with tempfile.TemporaryDirectory(prefix="collabopt-prescreen-") as scratch:
        log = Path(scratch) / "log"
        accepted = accept_baseline(
            model=planned.model,
            data=planned.data,
            task=planned.task,
            dataset_settings=planned.dataset_settings,
            import_settings=planned.import_settings,
            policy=planned.policy,
            directory=Path(scratch),
            log=log,
        )
        reports = _trained(planned.against)
        check_same_origin(reports, accepted.dataset_digest, planned.model)
        predictions = predict(
            planned.recipes,
            accepted.directory,
            accepted.dataset,
            allow_lambda=planned.import_settings.allow_lambda,
            log=log,
            progress=progress,
        )
    if planned.policy is not None:
        predictions = [
            each.model_copy(update={"missed": missed_goals(each, planned.policy, accepted.sizes)})
            for each in predictions
        ]
    prescreen = Prescreen(
        model=planned.model,
        data=planned.data,
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


def settings_of_stage(
    kind: type, technique: str, stage: str, parameters: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]]
) -> Any:
    """The settings of a stage above the tree, as a run would have them."""
    return parse_settings(kind, {**inputs_of(technique, parameters), **overrides.get(stage, {})}, stage)


def _one_at_a_time(grid: Grid) -> Iterable[dict[str, int | float]]:
    """Points that have every value of the grid; what is legal of one axis does not depend on the other."""
    for axis, values in grid.items():
        for value in values:
            yield {**{name: others[0] for name, others in grid.items()}, axis: value}


def _file(output: Path) -> Path:
    """Where the predictions go, and that nothing else lies there."""
    path = (output / PRESCREEN_FILE if output.is_dir() else output).absolute()
    if not path.parent.is_dir():
        raise CollaboptError("there is no such directory", where=f"--output {output}", todo="name a file in one")
    if path.exists():
        try:
            read_prescreen(path)
        except CollaboptError as error:
            raise CollaboptError(
                "a file that is no earlier prediction is in the way", where=f"--output {output}", todo="name another"
            ) from error
    return path
