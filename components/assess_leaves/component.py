"""Say whether any of the standard leaves already meets the policy."""

from kfp import dsl

from collabopt.components.image import component


@component
def assess_leaves(
    baseline: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
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
    releases: str = "",
) -> str:
    """Say whether any of the given leaves already meets the policy.

    Args:
        baseline: Output of import_model.
        dataset: Output of load_dataset.
        ptq: A leaf to assess; likewise the other leaves of the tree. Those left out are not assessed.
        policy: Policy of the deployment gate, as YAML.
        model_name: Name of the releases.
        releases: Where releases are kept, for goals against the champion; empty for nowhere.

    Returns:
        `sufficient` or `insufficient`.
    """
    from collabopt.components.engine.stages import assess_stage

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
    return assess_stage(
        baseline=baseline.path,
        dataset=dataset.path,
        leaves={name: leaf.path for name, leaf in leaves.items() if leaf},
        policy=policy,
        model_name=model_name,
        releases=releases,
    )
