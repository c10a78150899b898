"""Tree -> Kubeflow DAG: plant the baseline, grow stages on it, let the gate decide."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from collabopt import components
from collabopt.components.engine.bindings import inputs_of
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, TREE, Stage


@dataclass(frozen=True)
class Grown:
    """What has been grown so far.

    Attributes:
        parameters: Arguments of the run.
        configuration: Task that checked them; its outputs are the stages' overrides.
        prescreen: Task that predicted; its outputs are why stages are not trained. None where nothing is predicted.
        dataset: Output artifact of load_dataset.
        models: Stage name -> output artifact, the baseline included.
    """

    parameters: Parameters
    configuration: Any
    prescreen: Any
    dataset: Any
    models: Mapping[str, Any]


def plant(parameters: Parameters, stages: Iterable[Stage]) -> Grown:
    """Lays the ground, and predicts what the leaves will come to.

    Args:
        parameters: Arguments of the run.
        stages: All stages that this pipeline may grow; only these can be set.
    """
    grown = lay_ground(parameters, stages)
    used = {stage.name for stage in stages}
    prescreen = components.prescreen(
        baseline=grown.models[ROOT],
        dataset=grown.dataset,
        stages={stage.name: branch_of(stage) if stage.name in used else {} for stage in TREE},
        mode=parameters.prescreen,
        policy=parameters.policy,
        sparsity=parameters.sparsity,
        clusters=parameters.clusters,
        accelerator=parameters.accelerator,
        settings=parameters.settings,
    ).set_display_name("prescreen")
    return replace(grown, prescreen=prescreen)


def lay_ground(parameters: Parameters, stages: Iterable[Stage]) -> Grown:
    """Checks the parameters, loads the data and imports the baseline; predicts nothing.

    The checks are never taken from a cache: they find out whether model and data still hold what they held before.

    Args:
        parameters: Arguments of the run.
        stages: All stages that this pipeline may grow; only these can be set.
    """
    used = {stage.name for stage in stages}
    known = {stage.name: stage.technique.name if stage.name in used else "" for stage in TREE}
    configuration = components.configure(
        stages={"dataset": "load_dataset", ROOT: "import_model", **known},
        settings=parameters.settings,
        policy=parameters.policy,
        model=parameters.model,
        data=parameters.data,
        model_name=parameters.model_name,
        task=parameters.task,
        sparsity=parameters.sparsity,
        clusters=parameters.clusters,
        epochs=parameters.epochs,
        learning_rate=parameters.learning_rate,
        qat_epochs=parameters.qat_epochs,
        qat_learning_rate=parameters.qat_learning_rate,
        batch_size=parameters.batch_size,
        accelerator=parameters.accelerator,
        releases=parameters.releases,
        prescreen=parameters.prescreen,
        seed=parameters.seed,
    )
    configuration.set_display_name("configure").set_caching_options(False)
    data = components.load_dataset(
        source=parameters.data,
        source_digest=configuration.outputs["data_digest"],
        task=parameters.task,
        overrides=configuration.outputs["dataset"],
        **inputs_of("load_dataset", vars(parameters)),
    ).set_display_name("dataset")
    baseline = components.import_model(
        dataset=data.outputs["dataset"],
        source=parameters.model,
        source_digest=configuration.outputs["model_digest"],
        task=parameters.task,
        overrides=configuration.outputs[ROOT],
        **inputs_of("import_model", vars(parameters)),
    ).set_display_name(ROOT)
    return Grown(parameters, configuration, None, data.outputs["dataset"], {ROOT: baseline.outputs["model"]})


def grow(grown: Grown, stages: Iterable[Stage]) -> Grown:
    """Adds stages whose parents are there already, or come earlier among them."""
    models = dict(grown.models)
    for stage in stages:
        if stage.name in models:
            continue
        component = getattr(components, stage.technique.name)
        task = component(
            parent=models[stage.parent],
            dataset=grown.dataset,
            stage=stage.name,
            task=grown.parameters.task,
            overrides=grown.configuration.outputs[stage.name],
            skip=grown.prescreen.outputs[stage.name],
            **inputs_of(stage.technique.name, vars(grown.parameters)),
        )
        models[stage.name] = task.set_display_name(stage.name).outputs["model"]
    return replace(grown, models=models)


def assess(grown: Grown) -> Any:
    """Asks whether a leaf grown so far meets the policy; the output is `sufficient` or `insufficient`.

    Never taken from a cache: the answer depends on what the releases hold.
    """
    task = components.assess_leaves(
        baseline=grown.models[ROOT],
        dataset=grown.dataset,
        policy=grown.parameters.policy,
        model_name=grown.parameters.model_name,
        releases=grown.parameters.releases,
        **_leaves(grown),
    )
    return task.set_display_name("assess").set_caching_options(False).output


def decide(grown: Grown) -> None:
    """Lets the deployment gate decide over every leaf grown so far. A decision is never taken from a cache."""
    task = components.deployment_gate(
        baseline=grown.models[ROOT],
        dataset=grown.dataset,
        policy=grown.parameters.policy,
        model_name=grown.parameters.model_name,
        releases=grown.parameters.releases,
        predictions=grown.prescreen.outputs["predictions"],
        parameters=grown.configuration.outputs["parameters"],
        **_leaves(grown),
    )
    task.set_display_name("gate").set_caching_options(False)


def branch_of(stage: Stage) -> dict[str, str]:
    """Where a stage stands, as components are told."""
    return {"parent": stage.parent, "technique": stage.technique.name}


def _leaves(grown: Grown) -> dict[str, Any]:
    return {leaf.name: grown.models[leaf.name] for leaf in TREE.leaves() if leaf.name in grown.models}
