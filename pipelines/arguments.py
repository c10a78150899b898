"""What people say about a run on the command line, read and checked: the arguments of a pipeline."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path

import yaml

from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.errors import CollaboptError, unknown
from collabopt.components.engine.fetch import EXAMPLE_SCHEME
from collabopt.components.engine.prescreen.mode import check_mode
from collabopt.components.engine.settings import SETTINGS, settings_for
from collabopt.pipelines import PIPELINES, parameters_of, stages_of

# Where the defaults, chosen for small data, would take an example too long on two cores.
EXAMPLE_PARAMETERS: dict[str, dict[str, object]] = {
    f"{EXAMPLE_SCHEME}fashion-mnist": {"batch_size": 128, "epochs": 2, "qat_epochs": 2},
}

_OWN_OPTIONS = {
    "model": "--model",
    "data": "--data",
    "task": "--task",
    "policy": "--policy",
    "model_name": "--name",
    "settings": "--set",
    "releases": "--releases",
    "space": "--space",
}


def pipeline_arguments(
    *,
    pipeline: str,
    model: str,
    data: str,
    task: str | None = None,
    policy: Path | None = None,
    name: str | None = None,
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    plan: Path | None = None,
) -> dict[str, object]:
    """Turns what the command line says into the arguments of a pipeline, wherever it then runs.

    Args:
        pipeline: Name of a pipeline.
        model: Source of the trained model, as the pipeline takes it.
        data: Source of the data, as the pipeline takes it.
        task: Import path of the task; None for the pipeline's default.
        policy: File with the gate's policy; None for the pipeline's default.
        name: Name of the registered model; None for the pipeline's default.
        settings: `stage.parameter=value` each.
        parameters: `parameter=value` each, of the pipeline.
        plan: File with settings of single layers; None for none. `stage.layers=value` replaces them for its stage.

    Raises:
        CollaboptError: The first problem that is found.
    """
    check_pipeline(pipeline)
    overrides = parse_settings(settings)
    if plan is not None:
        overrides = _with_plan(overrides, plan, stages_of(pipeline))
    arguments: dict[str, object] = {
        **EXAMPLE_PARAMETERS.get(model, {}),
        **parse_parameters(parameters, parameters_of(pipeline)),
        "settings": overrides,
    }
    everything = {**parameters_of(pipeline), **arguments}
    check_mode(str(everything["prescreen"]), f"--param prescreen={everything['prescreen']}")
    check_settings(overrides, everything, stages_of(pipeline))
    arguments |= {"model": model, "data": data}
    if task is not None:
        _check_task(task)
        arguments["task"] = task
    if policy is not None:
        arguments["policy"] = policy_text(policy)
    if name is not None:
        _check_model_name(name)
        arguments["model_name"] = name
    return arguments


def check_pipeline(name: str) -> None:
    """Raises `CollaboptError` with all names when there is no such pipeline."""
    if name not in PIPELINES:
        raise unknown(f"unknown pipeline '{name}'", name, PIPELINES)


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
            raise unknown(f"unknown pipeline parameter '{name}'", name, legal, where)
        if name in parameters:
            raise CollaboptError(f"'{name}' is given twice", where=where, todo="keep one of them")
        parameters[name] = typed_value(value, defaults[name], where)
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


def typed_value(text: str, default: object, where: str) -> object:
    """Reads a value of the type of a default.

    Raises:
        CollaboptError: It is of another type, or not finite.
    """
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
    if isinstance(value, float) and not math.isfinite(value):  # JSON has none
        raise CollaboptError(f"{text!r} is not finite", where=where, todo=f"the default is {default!r}")
    return value


def check_settings(
    overrides: Mapping[str, Mapping[str, object]],
    parameters: Mapping[str, object],
    stages: Mapping[str, str],
    options: Mapping[str, str] | None = None,
) -> None:
    """Builds the settings of every stage as the run would: parameters of the pipeline, then the stage's own.

    Args:
        overrides: Stage -> parameter -> value.
        parameters: Pipeline parameter -> value.
        stages: Stage -> technique.
        options: Pipeline parameter -> the option it was given by, where that is not `--param`.

    Raises:
        CollaboptError: Something in it is unknown or illegal.
    """
    for stage, values in overrides.items():
        if stage not in stages:
            raise unknown(f"unknown stage '{stage}'", stage, stages, f"--set {stage}.{next(iter(values))}")
        for parameter in values:
            if parameter not in SETTINGS[stages[stage]].model_fields:
                legal, where = SETTINGS[stages[stage]].model_fields, f"--set {stage}.{parameter}"
                raise unknown(f"stage '{stage}' has no parameter '{parameter}'", parameter, legal, where)
    for stage, technique in stages.items():
        own = overrides.get(stage, {})
        inherited = {
            field: (parameter, parameters[parameter])
            for field, parameter in BINDINGS[technique].items()
            if field not in own
        }
        for field, (parameter, value) in inherited.items():
            option = (options or {}).get(parameter, "--param")
            _check_shared(parameter, field, value, technique, stage, option)
        settings_for(technique, {**{field: value for field, (_, value) in inherited.items()}, **own}, stage)


def _check_shared(parameter: str, field: str, value: object, technique: str, stage: str, option: str) -> None:
    try:
        settings_for(technique, {field: value}, stage)
    except CollaboptError as error:
        raise CollaboptError(
            f"pipeline parameter '{parameter}' is out of range: {error.what}",
            where=f"{option} {parameter}={value}",
            todo=f"choose another value, or give this stage its own with --set {stage}.{field}=VALUE",
        ) from error


def _with_plan(
    overrides: Mapping[str, dict[str, object]], file: Path, stages: Mapping[str, str]
) -> dict[str, dict[str, object]]:
    from collabopt.components.engine.layer_plan import read_layer_plan

    plan = read_layer_plan(file)
    planned = {stage: plan.settings_of(technique) for stage, technique in stages.items()}
    own = {stage: {"layers": layers} for stage, layers in planned.items() if layers}
    return {stage: {**own.get(stage, {}), **overrides.get(stage, {})} for stage in {**overrides, **own}}


def _check_task(task: str) -> None:
    module, colon, attribute = task.partition(":")
    if not colon or not attribute.isidentifier() or not all(part.isidentifier() for part in module.split(".")):
        raise CollaboptError(f"'{task}' does not read as a task", where="--task", todo="write --task MODULE:ATTRIBUTE")


def policy_text(path: Path) -> str:
    """The text of a policy file, or of the example policy of that name.

    Raises:
        CollaboptError: There is neither, or the policy is not valid.
    """
    from collabopt.components.engine.policy.policy import example_policies, read_policy

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


def _check_model_name(name: str) -> None:
    from collabopt.components.engine.release.names import check_model_name

    check_model_name(name)
