"""A search on Kubeflow: waves of trials through `dsl.ParallelFor`, then the gate over the leaves of all.

How many waves there are, and how wide they may be, is fixed when the pipeline is compiled, by the settings of the
cluster; space and budget are parameters of the run. Between two waves `propose_trials` learns and proposes. Every
trial grows the whole tree; Kubeflow's cache holds what an earlier wave, or an earlier run that was cut off, has trained
with the same settings.
"""

from collections.abc import Mapping
from typing import Any

from kfp import dsl

from collabopt import components
from collabopt.pipelines.cluster import SearchWaves
from collabopt.pipelines.grow import Grown, branch_of, lay_ground
from collabopt.pipelines.parameters import SearchParameters, pipeline
from collabopt.pipelines.tree import ROOT, TREE, Tree

BY_DEFAULT = SearchWaves()


def search_pipeline(spread: SearchWaves = BY_DEFAULT, tree: Tree = TREE) -> Any:
    """Builds the pipeline.

    Args:
        spread: Waves after the default configuration, and their size.
        tree: What every trial grows.
    """
    trials = spread.trials_at_once

    @pipeline(name="search", kind=SearchParameters)
    def search(parameters: SearchParameters) -> None:
        """Searches for the configuration that the model bears best, and lets the gate choose among all leaves."""
        ground = lay_ground(parameters, tree)
        proposed = _propose(ground, tree, parameters, "propose-0", 1)
        for wave in range(1, spread.waves + 1):
            leaves = _train(ground, tree, proposed, trials)
            proposed = _propose(ground, tree, parameters, f"propose-{wave}", trials, before=proposed, leaves=leaves)
        leaves = _train(ground, tree, proposed, trials)
        ended = _propose(ground, tree, parameters, "conclude", 0, before=proposed, leaves=leaves)
        _decide(ground, ended)

    return search


def _propose(
    ground: Grown,
    tree: Tree,
    parameters: SearchParameters,
    name: str,
    size: int,
    before: Any = None,
    leaves: Mapping[str, Any] | None = None,
) -> Any:
    """Learns from a wave and proposes the next; never from a cache, since it tells MLflow what it has learned."""
    known = {} if before is None else {"before": before.outputs["search"], **(leaves or {})}
    task = components.propose_trials(
        baseline=ground.models[ROOT],
        dataset=ground.dataset,
        stages={stage.name: branch_of(stage) for stage in tree},
        parameters=ground.configuration.outputs["parameters"],
        settings=parameters.settings,
        policy=parameters.policy,
        space=parameters.space,
        budget_trials=parameters.budget_trials,
        budget_epochs=parameters.budget_epochs,
        budget_minutes=parameters.budget_minutes,
        size=size,
        **known,
    )
    return task.set_display_name(name).set_caching_options(False)


def _train(ground: Grown, tree: Tree, proposed: Any, parallelism: int) -> dict[str, Any]:
    """Grows the tree once for every trial; returns each leaf, of all trials."""
    models = {ROOT: ground.models[ROOT]}
    with dsl.ParallelFor(proposed.outputs["Output"], parallelism=parallelism) as trial:
        for stage in tree:
            task = getattr(components, stage.technique.name)(
                parent=models[stage.parent],
                dataset=ground.dataset,
                stage=getattr(trial, f"{stage.name}_stage"),
                task=ground.parameters.task,
                overrides=_dictionary(getattr(trial, f"{stage.name}_overrides")),
                skip=getattr(trial, f"{stage.name}_skip"),
            )
            models[stage.name] = task.set_display_name(stage.name).outputs["model"]
    return {leaf.name: dsl.Collected(models[leaf.name]) for leaf in tree.leaves()}


def _dictionary(entry: Any) -> Any:
    """An entry of a loop's item that is a dict: kfp has all of them for text, and passes them on as they are."""
    entry.channel_type = "Dict"
    return entry


def _decide(ground: Grown, ended: Any) -> None:
    task = components.deployment_gate(
        baseline=ground.models[ROOT],
        dataset=ground.dataset,
        policy=ground.parameters.policy,
        model_name=ground.parameters.model_name,
        releases=ground.parameters.releases,
        search=ended.outputs["search"],
        parameters=ground.configuration.outputs["parameters"],
    )
    task.set_display_name("gate").set_caching_options(False)


search = search_pipeline()
