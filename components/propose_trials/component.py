"""Learn from the trials of a search so far, and propose the next ones."""

from typing import List  # noqa: UP035

from kfp import dsl

from collabopt.components.image import component


@component
def propose_trials(
    baseline: dsl.Input[dsl.Model],
    dataset: dsl.Input[dsl.Dataset],
    search: dsl.Output[dsl.Artifact],
    stages: dict,
    parameters: dict,
    size: int,
    before: dsl.Input[dsl.Artifact] = None,
    ptq: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    qat: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    pruned_ptq: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    pqat: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    pruned_clustered_ptq: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    pcqat: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    clustered_ptq: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    cqat: dsl.Input[List[dsl.Model]] = None,  # noqa: UP006
    space: str = "",
    policy: str = "",
    settings: dict = {},
    budget_trials: int = 12,
    budget_epochs: int = 0,
    budget_minutes: float = 0.0,
) -> list:
    """Learn from the trials of a search so far, and propose the next ones.

    The first wave is the default configuration alone: where no policy is given, the search is for what beats it. Then
    Optuna proposes, by the figures of the validation split. No two trials of a wave train the same stage, so that the
    cache, which shares between waves, misses nothing. What the prescreen rules out is proposed with its reason, and not
    trained. A wave is never empty: once the search has ended, it is the default configuration again, from the cache.

    Never to be cached itself: it logs every trial to the run that it is part of.

    Args:
        baseline: Output of import_model.
        dataset: Output of load_dataset.
        stages: Every stage that trials grow -> its `parent` and its `technique`.
        parameters: Output of configure; what a trial leaves open.
        size: Most trials of the wave; 0 to end the search, for the gate.
        before: Output `search` of the component before the last wave; none before the first.
        ptq: That leaf of every trial of the last wave; likewise the other leaves of the tree.
        space: What to try, as YAML; empty for the default space.
        policy: Policy of the deployment gate, as YAML; empty to beat the default configuration.
        settings: Stage name -> hyperparameter -> value, for all trials.
        budget_trials: Most trials, the default configuration included.
        budget_epochs: Most epochs of training over all stages; 0 for no limit.
        budget_minutes: Wall time since the first proposal after which no wave is proposed; 0 for no limit.

    Returns:
        Output: The trials: a list with `<stage>_stage`, `<stage>_overrides` and `<stage>_skip` for every stage of each.
        search: Directory with all that the search knows, for the next wave and for the gate.
    """
    import json

    from collabopt.components.engine.stages import propose_stage

    waves = (ptq, qat, pruned_ptq, pqat, pruned_clustered_ptq, pcqat, clustered_ptq, cqat)
    result = propose_stage(
        baseline=baseline.path,
        dataset=dataset.path,
        before=before.path if before else "",
        leaves=[leaf.path for wave in waves for leaf in wave or ()],
        output=search.path,
        stages=stages,
        space=space,
        policy=policy,
        parameters=parameters,
        settings=settings,
        budget_trials=budget_trials,
        budget_epochs=budget_epochs,
        budget_minutes=budget_minutes,
        size=size,
    )
    result.write_to(search)
    return json.loads(result.values["trials"])
