"""What `collabopt search` is asked for, checked before anything changes."""

import importlib.metadata
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.policy import check_task, parse_policy
from collabopt.components.engine.search.budget import budget_of
from collabopt.components.engine.search.sharing import Place
from collabopt.components.engine.search.space import read_space
from collabopt.components.engine.search.terms import Terms, terms_of
from collabopt.pipelines import parameters_of, stages_of
from collabopt.pipelines.local_run import LocalRun
from collabopt.pipelines.preflight import plan_run
from collabopt.pipelines.tree import TREE

_STAGED_PIPELINE = "staged"


@dataclass(frozen=True)
class PlannedSearch:
    """A search, all of it checked.

    Attributes:
        run: As a run of the pipeline would be: arguments, output, MLflow.
        terms: What the search is about.
        policy: The policy as YAML; None to beat the default configuration.
        origin: What must be the same for an interrupted search to go on.
    """

    run: LocalRun
    terms: Terms
    policy: str | None
    origin: dict[str, Any] = field(default_factory=dict)


def plan_search(
    *,
    model: str,
    data: str,
    output: Path,
    pipeline: str = "exhaustive",
    space: Path | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    task: str | None = None,
    policy: Path | None = None,
    name: str | None = None,
    releases: str = "",
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    plan: Path | None = None,
) -> PlannedSearch:
    """Turns what the command line says into a search that is ready to start; changes nothing.

    Args:
        model: See `plan_run`, as everything that is not named here.
        data: See `plan_run`.
        output: See `plan_run`.
        pipeline: Which part of the tree is grown.
        space: File with the space; None for the default one.
        trials: Most trials; None for the default.
        epochs: Most epochs of training over all stages; None for no limit.
        minutes: Wall time after which no wave begins; None for no limit.
        task: See `plan_run`.
        policy: File with the policy, or the name of an example; None to beat the default configuration.
        name: See `plan_run`.
        releases: See `plan_run`.
        settings: See `plan_run`.
        parameters: See `plan_run`; they are no axes then.
        plan: See `plan_run`.

    Raises:
        CollaboptError: The first problem that is found.
    """
    if pipeline == _STAGED_PIPELINE:
        raise CollaboptError(
            "a search grows all its stages, and `staged` only those that are needed",
            where="--pipeline staged",
            todo="search over `exhaustive`, the same tree, or over a branch",
        )
    from collabopt.pipelines.arguments import EXAMPLE_PARAMETERS, check_pipeline, parse_parameters

    check_pipeline(pipeline)
    budget = budget_of({"trials": trials, "epochs": epochs, "minutes": minutes}, "--{name} {value}")
    defaults = parameters_of(pipeline)
    given = parse_parameters(parameters := list(parameters), defaults)
    wanted = None if space is None else read_space(space)
    run = plan_run(
        pipeline=pipeline,
        model=model,
        data=data,
        output=output,
        task=task,
        policy=policy,
        name=name,
        releases=releases,
        settings=settings,
        parameters=parameters,
        plan=plan,
    )
    places = [
        Place(stage.name, stage.parent, stage.technique.name) for stage in TREE if stage.name in stages_of(pipeline)
    ]
    everything = {**defaults, **EXAMPLE_PARAMETERS.get(model, {}), **run.arguments}
    overrides: dict[str, dict[str, Any]] = everything["settings"]
    planned = PlannedSearch(
        run=run,
        terms=terms_of(places, everything, overrides, wanted, budget, given),
        policy=None if policy is None else str(run.arguments["policy"]),
    )
    return replace(planned, origin=_origin(planned, pipeline))


def _settings_of_default(terms: Terms) -> dict[str, Any]:
    """All of them, so that another default of ours is another search, too."""
    (stages,) = terms.stages([terms.default])
    return {name: json.loads(json.dumps(stage.settings)) for name, stage in stages.items()}


def _origin(planned: PlannedSearch, pipeline: str) -> dict[str, Any]:
    from collabopt.components.engine.source_digest import data_digest, model_digest
    from collabopt.components.engine.training.task import load_task

    sys.path.insert(0, os.getcwd())  # where a task may lie
    terms = planned.terms
    model, data, task = (str(terms.parameters[name]) for name in ("model", "data", "task"))
    purpose = load_task(task)
    if planned.policy is not None:
        check_task(parse_policy(planned.policy), purpose)
    fixed = {
        name: value
        for name, value in terms.parameters.items()
        if name not in {*terms.space.axes, "model", "data", "task", "policy", "model_name", "releases", "settings"}
    }
    return {
        "space": terms.space.as_yaml(),
        "policy": planned.policy or "",
        "model": model,
        "content of the model": model_digest(model),
        "data": data,
        "content of the data": data_digest(data, purpose),
        "task": task,
        "pipeline": pipeline,
        "parameters": json.loads(json.dumps(fixed)),
        "settings": json.loads(json.dumps(terms.overrides)),
        "default configuration": terms.default,
        "settings of its stages": _settings_of_default(terms),
        "version of collabopt": importlib.metadata.version("collabopt"),
    }
