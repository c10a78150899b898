"""Checks everything about a run that can be checked before anything is started; changes nothing."""

import glob
import importlib.util
import os
import sys
from collections.abc import Iterable
from importlib.machinery import PathFinder
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError, unknown
from collabopt.components.engine.fetch import EXAMPLE_SCHEME, GCS_SCHEME, TASK_SOURCE
from collabopt.pipelines import PIPELINES, SEARCH, parameters_of, stages_of
from collabopt.pipelines.arguments import pipeline_arguments
from collabopt.pipelines.local_run import LocalRun
from collabopt.pipelines.output_directory import check_output
from collabopt.pipelines.run_state import WatchedStage
from collabopt.pipelines.tree import ROOT, TREE

_ENGINE_MODULES = ("tensorflow", "tf_keras", "tensorflow_model_optimization", "ai_edge_litert", "mlflow", "sklearn")
_AROUND_THE_TREE = ("configure", "dataset", ROOT, "prescreen", "assess", "gate")


def plan_run(
    *,
    pipeline: str,
    model: str,
    data: str,
    output: Path,
    task: str | None = None,
    policy: Path | None = None,
    name: str | None = None,
    releases: str = "",
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    plan: Path | None = None,
) -> LocalRun:
    """Turns what the command line says into a run that is ready to start.

    Args:
        pipeline: Name of a pipeline.
        model: Path of the trained model, or `example://NAME`.
        data: Path of the data, or `example://NAME`.
        output: Output directory.
        task: Import path of the task; None for the pipeline's default.
        policy: File with the gate's policy; None for the pipeline's default.
        name: Name of the registered model; None for the pipeline's default.
        releases: Where releases are kept: `gs://` or a directory; "" for the MLflow registry alone.
        settings: `stage.parameter=value` each.
        parameters: `parameter=value` each, of the pipeline.
        plan: File with settings of single layers; None for none.

    Raises:
        CollaboptError: The first problem that is found.
    """
    if pipeline == SEARCH:
        raise CollaboptError(
            f"the pipeline '{SEARCH}' is for Kubeflow, whose cache shares stages between its trials",
            where=f"--pipeline {SEARCH}",
            todo="run `collabopt search`, without --pipeline, for a search on this machine",
        )
    arguments = pipeline_arguments(
        pipeline=pipeline,
        model=model,
        data=data,
        task=task,
        policy=policy,
        name=name,
        settings=settings,
        parameters=parameters,
        plan=plan,
    )
    check_output(output)
    check_engine()
    arguments |= {"model": existing_source(model, "--model"), "data": existing_source(data, "--data")}
    if task is not None:
        check_task_module(task)
    elif policy is not None:  # with a task of the user's own, the first stage checks it
        _check_policy(str(arguments["policy"]), str(parameters_of(pipeline)["task"]))
    if releases:
        arguments["releases"] = _store_address(releases)
    tracking_uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{Path.cwd() / 'mlflow.db'}"
    _check_tracking(tracking_uri)
    return LocalRun(
        pipeline=PIPELINES[pipeline],
        name=pipeline,
        arguments=arguments,
        output=output,
        tracking_uri=tracking_uri,
        stages=watched_stages(pipeline),
        old_logs=(*_AROUND_THE_TREE, *(stage.name for stage in TREE.stages)),
        stage_host=True,
    )


def watched_stages(pipeline: str) -> tuple[WatchedStage, ...]:
    """The stages that a run of this pipeline shows from its start, in order of display."""
    own = stages_of(pipeline)
    return (
        WatchedStage("configure", optional=True),
        WatchedStage("dataset"),
        WatchedStage(ROOT),
        WatchedStage("prescreen", optional=True),
        *(WatchedStage(stage.name, stage.parent) for stage in TREE.stages if stage.name in own),
        WatchedStage("assess", optional=True),
        WatchedStage("gate"),
    )


def check_engine() -> None:
    """Raises `CollaboptError` where what stages and gate run on is not installed."""
    missing = [module for module in _ENGINE_MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise CollaboptError(
            "what the stages run on is not installed",
            where=f"missing: {', '.join(missing)}",
            todo="pip install 'collabopt[engine]'",
        )


def existing_source(source: str, option: str) -> str:
    """A source of a model or data as stages, which run in other directories, need it.

    Raises:
        CollaboptError: It is not there, or of a kind that is not supported.
    """
    if source.startswith(EXAMPLE_SCHEME):
        # Imported here because it needs the engine extra, which has just been checked.
        from collabopt.components.engine.datasets.examples import EXAMPLES

        name = source.removeprefix(EXAMPLE_SCHEME)
        if name not in EXAMPLES:
            raise unknown(f"unknown example '{name}'", name, EXAMPLES)
        return source
    if source.startswith(GCS_SCHEME) or (option == "--data" and source == TASK_SOURCE):
        return source
    if "://" in source:
        raise CollaboptError(
            f"sources of the kind {source.partition('://')[0]}:// are not supported",
            where=f"{option} {source}",
            todo="pass a local path, gs://bucket/path or --example NAME",
        )
    if option == "--data" and glob.has_magic(source):
        if not glob.glob(source):
            raise CollaboptError("no file matches the pattern", where=f"{option} {source}", todo="check the pattern")
        return str(Path(source).absolute())
    path = Path(source).expanduser().absolute()
    if not path.exists():
        raise CollaboptError("there is no such file or directory", where=f"{option} {source}", todo="correct the path")
    return str(path)


def check_task_module(task: str) -> None:
    """Raises `CollaboptError` where the package of a task is not there."""
    package = task.partition(":")[0].split(".")[0]
    # The stages run with the current directory on their path.
    if PathFinder.find_spec(package, [str(Path.cwd()), *sys.path]) is None:
        raise CollaboptError(
            f"there is no module '{package}'",
            where=f"--task {task}",
            todo="install it, or run in the directory that holds it",
        )


def _check_policy(policy: str, task: str) -> None:
    from collabopt.components.engine.policy.policy import check_task, parse_policy
    from collabopt.components.engine.training.task import load_task

    check_task(parse_policy(policy), load_task(task))


def _store_address(uri: str) -> str:
    """The address as stages, which run in other directories, need it."""
    from collabopt.components.engine.release.object_store import open_store

    return open_store(uri).uri


def _check_tracking(uri: str) -> None:
    from collabopt.components.engine.tracking import check_reachable

    check_reachable(uri)
