"""What a search on Kubeflow is told, checked before anything is sent."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.search.budget import Budget, budget_of
from collabopt.components.engine.search.sharing import Place
from collabopt.components.engine.search.space import read_space
from collabopt.components.engine.search.terms import terms_of
from collabopt.pipelines import SEARCH, parameters_of
from collabopt.pipelines.tree import TREE

if TYPE_CHECKING:
    from collabopt.pipelines.cluster import SearchWaves


def search_arguments(
    pipeline: str,
    arguments: Mapping[str, object],
    given: Mapping[str, object],
    space: Path | None,
    spread: "SearchWaves",
) -> dict[str, object]:
    """Arguments that only a search takes.

    Args:
        pipeline: Name of the pipeline.
        arguments: Its other arguments.
        given: Those of them that were given a value on the command line.
        space: File with the space; None for the default one.
        spread: Waves that the pipeline is compiled with.

    Returns:
        For a search its space as YAML: the default one without the axes that were given a value, where none is given;
        and as many trials as it has room for, where that is less than the default.

    Raises:
        CollaboptError: The pipeline is no search, or space or budget is not legal.
    """
    if pipeline != SEARCH:
        if space is None:
            return {}
        raise CollaboptError(
            f"the pipeline '{pipeline}' takes no space", where=f"--space {space}", todo=f"add --pipeline {SEARCH}"
        )
    everything = {**parameters_of(pipeline), **arguments}
    overrides: dict[str, dict[str, object]] = everything["settings"]
    places = [Place(stage.name, stage.parent, stage.technique.name) for stage in TREE]
    wanted = None if space is None else read_space(space)
    if "budget_trials" not in given:
        everything["budget_trials"] = min(everything["budget_trials"], spread.most_trials)
    terms = terms_of(places, everything, overrides, wanted, _budget(everything, spread), given)
    text = yaml.safe_dump(terms.space.as_yaml()) if space is None else space.read_text(encoding="utf-8")
    return {"space": text, "budget_trials": everything["budget_trials"]}


def _budget(arguments: Mapping[str, Any], spread: "SearchWaves") -> Budget:
    trials = arguments["budget_trials"]
    if trials > spread.most_trials:
        raise CollaboptError(
            f"a budget of {trials} trials is more than the pipeline has room for",
            where=f"--param budget_trials={trials}",
            todo=f"allow {spread.most_trials} at most, the default configuration and {spread.waves} waves of "
            f"{spread.trials_at_once}, or give it more: --cluster-set search.waves=..., search.trials_at_once=...",
        )
    limits = {name: arguments[f"budget_{name}"] or None for name in ("epochs", "minutes")}
    return budget_of({"trials": trials, **limits}, "--param budget_{name}={value}")
