"""Checks of a whole run's parameters, before anything is spent on it."""

from collections.abc import Mapping
from typing import Any

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.prescreen.mode import SKIP, check_mode
from collabopt.components.engine.progress import emit
from collabopt.components.engine.session import stage_session
from collabopt.components.engine.settings import settings_for
from collabopt.components.engine.source_digest import data_digest, model_digest
from collabopt.components.engine.training.task import load_task

STAGE = "configure"


def configure_run(
    *,
    stages: Mapping[str, str],
    settings: Mapping[str, Mapping[str, object]],
    policy: str,
    task: str,
    model: str,
    data: str,
    model_name: str,
    releases: str,
    prescreen: str = SKIP,
    parameters: Mapping[str, object],
) -> dict[str, Any]:
    """Validates policy, task, parameters and per-stage settings, and hands every stage its own overrides.

    Args:
        stages: Every stage of the tree that has settings -> its technique, or "" where the pipeline leaves it out.
        settings: Stage name -> hyperparameter -> value.
        policy: Policy of the gate, as YAML.
        task: Import path of the task.
        model: Source of the model.
        data: Source of the data.
        model_name: Name in the MLflow registry.
        releases: Where releases are kept; empty for the MLflow registry alone.
        prescreen: What predictions are for; one of `MODES`.
        parameters: Pipeline parameters that set hyperparameters (see `bindings`).

    Returns:
        Under `parameters` what people compare runs by: the arguments of the pipeline, the digests of model and data,
        and the settings given to single stages as `<stage>.<name>`. Under `model_digest` and `data_digest` what the
        sources hold now. Under every stage's name its overrides, empty where there are none.

    Raises:
        CollaboptError: Something in it is unknown or illegal, or there is nothing at a source.
    """
    from collabopt.components.engine.gate.champion import check_champion_is_kept
    from collabopt.components.engine.policy.policy import check_task, parse_policy
    from collabopt.components.engine.release.names import check_model_name

    with stage_session(STAGE):
        rules = parse_policy(policy)
        check_champion_is_kept(rules, releases)
        check_model_name(model_name)
        check_mode(prescreen)
        purpose = load_task(task)
        check_task(rules, purpose)
        used = {stage: technique for stage, technique in stages.items() if technique}
        for stage, values in settings.items():
            _check_form(stage, values, used)
        for stage, technique in used.items():
            settings_for(technique, {**inputs_of(technique, parameters), **settings.get(stage, {})}, stage)
        digests = {"model_digest": model_digest(model), "data_digest": data_digest(data, purpose)}
        emit(STAGE, "finished", metrics={})
        sources = {"model": model, "data": data, **digests, "task": task, "policy": policy, "prescreen": prescreen}
        given = {f"{stage}.{name}": value for stage, values in settings.items() for name, value in values.items()}
        overrides = {stage: dict(settings.get(stage, {})) for stage in stages}
        return {"parameters": {**sources, **parameters, **given}, **digests, **overrides}


def _check_form(stage: str, values: object, stages: Mapping[str, str]) -> None:
    if stage not in stages:
        raise CollaboptError(
            f"unknown stage '{stage}' in the settings",
            todo=f"stages of this pipeline: {', '.join(sorted(stages))}",
        )
    if not isinstance(values, Mapping):
        raise CollaboptError(
            f"settings of stage '{stage}' must map parameter names to values, not {type(values).__name__}",
            where=f"stage '{stage}'",
            todo=f"write for example {{'{stage}': {{'epochs': 5}}}}",
        )
