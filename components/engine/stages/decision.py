"""The stages that decide: whether the standard pathway suffices, and which leaf ships."""

from collections.abc import Mapping

from collabopt.components.engine.gate.decision import assess
from collabopt.components.engine.gate.policy import parse_policy
from collabopt.components.engine.gate.run import run_gate
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import read_leaf_report, read_stage_record
from collabopt.components.engine.session import stage_session
from collabopt.components.engine.stage_result import StageResult


def assess_stage(*, baseline: str, leaves: Mapping[str, str], policy: str) -> str:
    """Says whether any leaf meets the policy.

    Args:
        baseline: Directory of the baseline.
        leaves: Leaf name -> its directory.
        policy: Policy as YAML.

    Returns:
        `sufficient` or `insufficient`.
    """
    with stage_session("assess"):
        reports = {name: read_leaf_report(directory) for name, directory in leaves.items()}
        met = assess(reports, read_stage_record(baseline), parse_policy(policy))
        emit("assess", "finished", metrics={"leaves": len(reports)})
        return "sufficient" if met else "insufficient"


def gate_stage(
    *,
    baseline: str,
    leaves: Mapping[str, str],
    policy: str,
    output: str,
    model_name: str,
    parameters: Mapping[str, object],
) -> StageResult:
    """Decides, registers the winner and completes the pipeline's MLflow run; see `run_gate`.

    Returns:
        The winner's scalars, none where no leaf qualifies, and its name.
    """
    with stage_session("gate"):
        decision = run_gate(
            baseline=baseline,
            leaves=leaves,
            policy_text=policy,
            output=output,
            model_name=model_name,
            parameters={name: _as_given(value) for name, value in parameters.items()},
        )
        metrics = read_leaf_report(leaves[decision.winner]).metrics if decision.winner else {}
        emit("gate", "finished", metrics=metrics)
        return StageResult(metrics, {"winner": decision.winner or "", "outcome": decision.outcome})


def _as_given(value: object) -> object:
    """Undoes what a KFP dict does to whole numbers: it turns them into floats."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
