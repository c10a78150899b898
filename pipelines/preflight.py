"""Checks everything about a run that can be checked before anything is started; changes nothing."""

import difflib
import glob
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping
from importlib.machinery import PathFinder
from pathlib import Path

import yaml

from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import EXAMPLE_SCHEME, GCS_SCHEME, TASK_SOURCE
from collabopt.components.engine.settings import SETTINGS, settings_for
from collabopt.pipelines import PIPELINES, parameters_of, stages_of
from collabopt.pipelines.local_run import LocalRun
from collabopt.pipelines.output_directory import check_output
from collabopt.pipelines.run_state import WatchedStage
from collabopt.pipelines.tree import ROOT, TREE

# Where the defaults, chosen for small data, would take an example too long on two cores.
EXAMPLE_PARAMETERS: dict[str, dict[str, object]] = {
    f"{EXAMPLE_SCHEME}fashion-mnist": {"batch_size": 128, "epochs": 2, "qat_epochs": 2},
}

_ENGINE_MODULES = ("tensorflow", "tf_keras", "tensorflow_model_optimization", "ai_edge_litert", "mlflow", "sklearn")
_AROUND_THE_TREE = ("configure", "dataset", ROOT, "assess", "gate")
_OWN_OPTIONS = {
    "model": "--model",
    "data": "--data",
    "task": "--task",
    "policy": "--policy",
    "model_name": "--name",
    "settings": "--set",
    "releases": "--releases",
}


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

    Raises:
        CollaboptError: The first problem that is found.
    """
    check_pipeline(pipeline)
    overrides = parse_settings(settings)
    arguments: dict[str, object] = {
        **EXAMPLE_PARAMETERS.get(model, {}),
        **parse_parameters(parameters, parameters_of(pipeline)),
        "settings": overrides,
    }
    _check_settings(overrides, {**parameters_of(pipeline), **arguments}, stages_of(pipeline))
    check_output(output)
    check_engine()
    arguments |= {"model": _existing(model, "--model"), "data": _existing(data, "--data")}
    if task is not None:
        _check_task(task)
        arguments["task"] = task
    if policy is not None:
        arguments["policy"] = policy_text(policy)
    if releases:
        arguments["releases"] = _store_address(releases)
    if name is not None:
        _check_model_name(name)
        arguments["model_name"] = name
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


def check_pipeline(name: str) -> None:
    """Raises `CollaboptError` with all names when there is no such pipeline."""
    if name not in PIPELINES:
        raise _unknown(f"unknown pipeline '{name}'", name, PIPELINES)


def watched_stages(pipeline: str) -> tuple[WatchedStage, ...]:
    """The stages that a run of this pipeline shows from its start, in order of display."""
    own = stages_of(pipeline)
    return (
        WatchedStage("configure", optional=True),
        WatchedStage("dataset"),
        WatchedStage(ROOT),
        *(WatchedStage(stage.name, stage.parent) for stage in TREE.stages if stage.name in own),
        WatchedStage("assess", optional=True),
        WatchedStage("gate"),
    )


def parse_settings(texts: Iterable[str]) -> dict[str, dict[str, object]]:
    """Reads `stage.parameter=value` options.

    Returns:
        Stage -> parameter -> value.

    Raises:
        CollaboptError: One is malformed or given twice.
    """
    overrides: dict[str, dict[str, object]] = {}
    for text in texts:
        left, equals, value = text.partition("=")
        stage, dot, parameter = left.partition(".")
        if not (stage and dot and parameter and equals):
            raise CollaboptError(
                f"'{text}' does not read as a setting", where="--set", todo="write --set STAGE.PARAMETER=VALUE"
            )
        values = overrides.setdefault(stage, {})
        if parameter in values:
            raise CollaboptError(f"'{left}' is set twice", where="--set", todo="keep one of them")
        values[parameter] = parse_value(value, f"--set {text}")
    return overrides


def parse_parameters(texts: Iterable[str], defaults: Mapping[str, object]) -> dict[str, object]:
    """Reads `parameter=value` options of a pipeline.

    Args:
        texts: The options.
        defaults: Every parameter of the pipeline with its default, which also gives its type.

    Raises:
        CollaboptError: A parameter is malformed, unknown, given twice, or of another type.
    """
    parameters: dict[str, object] = {}
    legal = [name for name in defaults if name not in _OWN_OPTIONS]
    for text in texts:
        name, equals, value = text.partition("=")
        where = f"--param {text}"
        if not (name and equals):
            raise CollaboptError(f"'{text}' does not read as a parameter", where=where, todo="write --param NAME=VALUE")
        if name in _OWN_OPTIONS:
            raise CollaboptError(f"'{name}' has an option of its own", where=where, todo=f"use {_OWN_OPTIONS[name]}")
        if name not in legal:
            raise _unknown(f"unknown pipeline parameter '{name}'", name, legal, where)
        if name in parameters:
            raise CollaboptError(f"'{name}' is given twice", where=where, todo="keep one of them")
        parameters[name] = _typed(value, defaults[name], where)
    return parameters


def parse_value(text: str, where: str) -> object:
    """Reads a value as JSON, else as YAML: `3`, `1e-4`, `true`, `constant`, `[1, 2]`."""
    try:
        return json.loads(text)  # YAML 1.1 takes 1e-4 for a word
    except ValueError:
        pass
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise CollaboptError(f"'{text}' does not read as a value", where=where, todo="quote it as JSON") from error


def _typed(text: str, default: object, where: str) -> object:
    if isinstance(default, str):
        return text
    value = parse_value(text, where)
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        kinds = {int: "a whole number", float: "a number", bool: "true or false"}
        raise CollaboptError(
            f"{text!r} is not {kinds.get(type(default), type(default).__name__)}",
            where=where,
            todo=f"the default is {default!r}",
        )
    return value


def _check_settings(
    overrides: Mapping[str, Mapping[str, object]], parameters: Mapping[str, object], stages: Mapping[str, str]
) -> None:
    """Builds the settings of every stage as the run would: parameters of the pipeline, then the stage's own."""
    for stage, values in overrides.items():
        if stage not in stages:
            raise _unknown(f"unknown stage '{stage}'", stage, stages, f"--set {stage}.{next(iter(values))}")
        for parameter in values:
            if parameter not in SETTINGS[stages[stage]].model_fields:
                legal, where = SETTINGS[stages[stage]].model_fields, f"--set {stage}.{parameter}"
                raise _unknown(f"stage '{stage}' has no parameter '{parameter}'", parameter, legal, where)
    for stage, technique in stages.items():
        own = overrides.get(stage, {})
        inherited = {
            field: (parameter, parameters[parameter])
            for field, parameter in BINDINGS[technique].items()
            if field not in own
        }
        for field, (parameter, value) in inherited.items():
            _check_shared(parameter, field, value, technique, stage)
        settings_for(technique, {**{field: value for field, (_, value) in inherited.items()}, **own}, stage)


def _check_shared(parameter: str, field: str, value: object, technique: str, stage: str) -> None:
    try:
        settings_for(technique, {field: value}, stage)
    except CollaboptError as error:
        raise CollaboptError(
            f"pipeline parameter '{parameter}' is out of range: {error.what}",
            where=f"--param {parameter}={value}",
            todo=f"choose another value, or give this stage its own with --set {stage}.{field}=VALUE",
        ) from error


def check_engine() -> None:
    """Raises `CollaboptError` where what stages and gate run on is not installed."""
    missing = [module for module in _ENGINE_MODULES if importlib.util.find_spec(module) is None]
    if missing:
        raise CollaboptError(
            "what the stages run on is not installed",
            where=f"missing: {', '.join(missing)}",
            todo="pip install 'collabopt[engine]'",
        )


def _existing(source: str, option: str) -> str:
    if source.startswith(EXAMPLE_SCHEME):
        # Imported here because it needs the engine extra, which has just been checked.
        from collabopt.components.engine.datasets.examples import EXAMPLES

        name = source.removeprefix(EXAMPLE_SCHEME)
        if name not in EXAMPLES:
            raise _unknown(f"unknown example '{name}'", name, EXAMPLES)
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


def _check_task(task: str) -> None:
    module, colon, attribute = task.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise CollaboptError(f"'{task}' does not read as a task", where="--task", todo="write --task MODULE:ATTRIBUTE")
    package = module.split(".")[0]
    # The stages run with the current directory on their path.
    if PathFinder.find_spec(package, [str(Path.cwd()), *sys.path]) is None:
        raise CollaboptError(
            f"there is no module '{package}'",
            where=f"--task {task}",
            todo="install it, or run in the directory that holds it",
        )


def _check_model_name(name: str) -> None:
    from collabopt.components.engine.release.names import check_model_name

    check_model_name(name)


def policy_text(path: Path) -> str:
    """The text of a policy file, or of the example policy of that name.

    Raises:
        CollaboptError: There is neither, or the policy is not valid.
    """
    from collabopt.components.engine.gate.policy import example_policies, read_policy

    examples = example_policies()
    if str(path) in examples and not path.exists():
        return examples[str(path)]
    if not path.is_file():
        raise CollaboptError(
            "there is no such policy file",
            where=str(path),
            todo=f"correct --policy, or name an example: {', '.join(examples)}",
        )
    read_policy(path)
    return path.read_text(encoding="utf-8")


def _store_address(uri: str) -> str:
    """The address as stages, which run in other directories, need it."""
    from collabopt.components.engine.release.object_store import open_store

    return open_store(uri).uri


def _check_tracking(uri: str) -> None:
    from collabopt.components.engine.tracking import check_reachable

    check_reachable(uri)


def _unknown(what: str, name: str, legal: Iterable[str], where: str = "") -> CollaboptError:
    names = list(legal)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return CollaboptError(what + hint, where=where, todo=f"use one of: {', '.join(names)}")
