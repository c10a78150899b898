"""Leaves that were not trained: why, by the policy that the gate has now."""

from collections.abc import Mapping

from collabopt.components.engine.policy.figures import NPU
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.prescreen.judgement import missed_goals
from collabopt.components.engine.prescreen.records import Prescreen
from collabopt.components.engine.records import SkippedRecord


def why_untrained(
    record: SkippedRecord, policy: Policy, baseline: Mapping[str, float], predicted: Prescreen | None
) -> str:
    """Why a leaf was not trained.

    A leaf that its prediction ruled out is judged again where the policy has changed since: it stays untrained, and
    the reason says whether it would still be ruled out.

    Args:
        record: What the leaf has left.
        policy: The policy that decides now.
        baseline: Figures of the fp32 baseline.
        predicted: What was predicted before training; None where nothing was, or it is not known.
    """
    if predicted is None or predicted.policy == policy or predicted.not_trained.get(record.name) != record.reason:
        return record.reason
    prediction = next((each for each in predicted.predictions if each.leaf == record.name), None)
    if prediction is None:
        return record.reason
    if policy.accelerator not in (None, prediction.accelerator):  # of that one nothing is known
        policy = policy.model_copy(update={"goals": [g for g in policy.goals if not g.figure.startswith(NPU)]})
    missed = missed_goals(prediction, policy, baseline)
    if missed:
        return "; ".join(missed)
    return f"under another policy: {record.reason}; under this one it might qualify: run the pipeline with it"
