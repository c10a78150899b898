"""Pick the leaf to ship, say why, prove it, and release it."""

from kfp import dsl

from collabopt.components.image import component


@component
def deployment_gate(
    baseline: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    decision: dsl.Output[dsl.Artifact],
    report: dsl.Output[dsl.HTML],
    metrics: dsl.Output[dsl.Metrics],
    ptq: dsl.Input[dsl.Model] = None,
    qat: dsl.Input[dsl.Model] = None,
    pruned_ptq: dsl.Input[dsl.Model] = None,
    pqat: dsl.Input[dsl.Model] = None,
    pruned_clustered_ptq: dsl.Input[dsl.Model] = None,
    pcqat: dsl.Input[dsl.Model] = None,
    clustered_ptq: dsl.Input[dsl.Model] = None,
    cqat: dsl.Input[dsl.Model] = None,
    predictions: dsl.Input[dsl.Artifact] = None,
    search: dsl.Input[dsl.Artifact] = None,
    policy: str = "",
    model_name: str = "collabopt",
    releases: str = "",
    parameters: dict = {},
):
    """Pick the leaf to ship, say why, prove it, and release it.

    Args:
        baseline: Output of import_model; drops are measured against it.
        dataset: Output of load_dataset; the winner's figure is reproduced on its test split before anything ships.
        ptq: A leaf to decide on; likewise the other leaves of the tree. Those left out were not built.
        predictions: Output of prescreen, to be compared with the leaves.
        search: Output of propose_trials when the search has ended; its leaves are decided on by its policy.
        policy: What qualifies, and what of that is preferred, as YAML.
        model_name: Name in the MLflow registry, and of the releases.
        releases: Where releases are kept: `gs://bucket/prefix` or a directory; empty for the MLflow registry alone.
        parameters: The run's parameters, for the record.

    Returns:
        decision: Directory with `decision.json` (a verdict and a reason for every leaf) and the winner's model card.
        report: What was compared and decided, as one page.
        metrics: The winner's scalars; empty when no leaf qualifies.
    """
    from collabopt.components.engine.stages import gate_stage

    leaves = {
        "ptq": ptq,
        "qat": qat,
        "pruned_ptq": pruned_ptq,
        "pqat": pqat,
        "pruned_clustered_ptq": pruned_clustered_ptq,
        "pcqat": pcqat,
        "clustered_ptq": clustered_ptq,
        "cqat": cqat,
    }
    gate_stage(
        baseline=baseline.path,
        dataset=dataset.path,
        leaves={name: leaf.path for name, leaf in leaves.items() if leaf},
        predictions=predictions.path if predictions else "",
        search=search.path if search else "",
        policy=policy,
        output=decision.path,
        report=report.path,
        model_name=model_name,
        releases=releases,
        parameters=parameters,
    ).write_to(decision, metrics)
