"""Pick the leaf to ship, say why, and register it."""

from kfp import dsl

from collabopt.components.image import component


@component
def deployment_gate(
    baseline: dsl.Input[dsl.Model],
    decision: dsl.Output[dsl.Artifact],
    metrics: dsl.Output[dsl.Metrics],
    ptq: dsl.Input[dsl.Model] = None,
    qat: dsl.Input[dsl.Model] = None,
    pruned_ptq: dsl.Input[dsl.Model] = None,
    pqat: dsl.Input[dsl.Model] = None,
    pruned_clustered_ptq: dsl.Input[dsl.Model] = None,
    pcqat: dsl.Input[dsl.Model] = None,
    clustered_ptq: dsl.Input[dsl.Model] = None,
    cqat: dsl.Input[dsl.Model] = None,
    policy: str = "",
    model_name: str = "collabopt",
    parameters: dict = {},
):
    """Pick the leaf to ship, say why, and register it.

    Args:
        baseline: Output of import_model; drops are measured against it.
        ptq: A leaf to decide on; likewise the other leaves of the tree. Those left out were not built.
        policy: What qualifies and what to minimise, as YAML.
        model_name: Name in the MLflow registry.
        parameters: The run's parameters, for the record.

    Returns:
        decision: Directory with `decision.json`: a verdict and a reason for every leaf.
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
        leaves={name: leaf.path for name, leaf in leaves.items() if leaf},
        policy=policy,
        output=decision.path,
        model_name=model_name,
        parameters=parameters,
    ).write_to(decision, metrics)
