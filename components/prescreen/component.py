"""Predict what every leaf will weigh and cost, and say which stages need not be trained."""

from typing import NamedTuple

from kfp import dsl

from collabopt.components.image import component


@component
def prescreen(
    baseline: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    predictions: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    stages: dict,
    mode: str = "skip",
    policy: str = "",
    sparsity: float = 0.5,
    clusters: int = 16,
    accelerator: str = "ethos-u55-128",
    settings: dict = {},
) -> NamedTuple(  # type: ignore[valid-type]
    "Reasons",
    ptq=str,
    qat=str,
    pruned=str,
    pruned_ptq=str,
    pqat=str,
    pruned_clustered=str,
    pruned_clustered_ptq=str,
    pcqat=str,
    clustered=str,
    clustered_ptq=str,
    cqat=str,
):
    """Predict what every leaf will weigh and cost, and say which stages need not be trained.

    Size and NPU latency follow from which weights are zero and which are equal, hardly from their values. So the
    baseline's own weights are masked and clustered, and that is converted, without training. A leaf that misses a goal
    of the policy on such a figure by more than a prediction's error is not trained, nor is a stage that leads to no
    other leaf. Every stage gets its reason as a value, so that a prediction that changes invalidates the cached results
    of those stages alone whose reason changes with it.

    A leaf without training that cannot be made at all is an error here already.

    Args:
        baseline: Output of import_model.
        dataset: Output of load_dataset; quantization ranges come from its calibration split.
        stages: Every stage of the tree -> its `parent` and its `technique`, nothing where the pipeline leaves it out.
        mode: `skip` says what is not to be trained; `report` predicts only, for the gate's report; `off` does neither.
        policy: Policy of the deployment gate, as YAML.
        sparsity: Target sparsity of pruning.
        clusters: Number of clusters.
        accelerator: NPU that figures are estimated for, where the policy names none.
        settings: Stage name -> hyperparameter -> value, over the inputs above.

    Returns:
        predictions: Directory with `prescreen.json`: the figures of every leaf, and the goals that it cannot meet.
        metrics: How many stages are not trained, and the predicted sizes.
        ptq: Why that stage is not trained, empty where it is; as for every stage of the tree.
    """
    from collections import namedtuple

    from collabopt.components.engine.stages import prescreen_stage

    result = prescreen_stage(
        mode=mode,
        baseline=baseline.path,
        dataset=dataset.path,
        output=predictions.path,
        stages=stages,
        parameters={"sparsity": sparsity, "clusters": clusters, "accelerator": accelerator},
        settings=settings,
        policy=policy,
    )
    result.write_to(predictions, metrics)
    return namedtuple("Reasons", result.values)(**result.values)
