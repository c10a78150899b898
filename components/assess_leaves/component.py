"""Say whether any of the standard leaves already meets the policy."""

from kfp import dsl

from collabopt.components.image import component


@component
def assess_leaves(
    baseline: dsl.Input[dsl.Model],
    ptq: dsl.Input[dsl.Model] = None,
    qat: dsl.Input[dsl.Model] = None,
    pruned_ptq: dsl.Input[dsl.Model] = None,
    pqat: dsl.Input[dsl.Model] = None,
    pruned_clustered_ptq: dsl.Input[dsl.Model] = None,
    pcqat: dsl.Input[dsl.Model] = None,
    clustered_ptq: dsl.Input[dsl.Model] = None,
    cqat: dsl.Input[dsl.Model] = None,
    policy: str = "",
) -> str:
    """Say whether any of the given leaves already meets the policy.

    Args:
        baseline: Output of import_model.
        ptq: A leaf to assess; likewise the other leaves of the tree. Those left out are not assessed.
        policy: Policy of the deployment gate, as YAML.

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
        leaves={name: leaf.path for name, leaf in leaves.items() if leaf},
        policy=policy,
    )
