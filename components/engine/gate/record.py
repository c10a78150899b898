"""What MLflow shows of a decision: the pipeline's runs, complete also where stages were cached or MLflow failed."""

from collections.abc import Mapping

from collabopt.components.engine.gate.candidates import Candidates
from collabopt.components.engine.gate.decision import Decision, Verdict
from collabopt.components.engine.tracking.children import complete_stage, runs_below
from collabopt.components.engine.tracking.parent import ParentRun
from collabopt.components.engine.tracking.stage_account import account_of_leaf, account_of_skipped, account_of_step

NONE = "none"


def complete_parent(parent: ParentRun, decision: Decision, parameters: Mapping[str, object]) -> None:
    """Writes a decision to the parent run: params, the winner's metrics, the table of leaves, outcome.

    Args:
        parent: The run of the whole pipeline.
        decision: What the gate decided.
        parameters: What people compare runs by: the pipeline's parameters and the settings given to single stages.
    """
    parent.log_params(parameters)
    parent.log_metrics(_metrics(decision))
    parent.describe(leaf_table(decision))
    parent.set_tags(
        {
            "winner": decision.winner or NONE,
            "outcome": decision.outcome,
            "winner_sha256": decision.winner_sha256 or NONE,
        }
    )


def complete_stages(parent: ParentRun, candidates: Candidates) -> None:
    """Has every stage that led to a leaf, and the leaf, appear below the parent with all that its artifact tells.

    Of stages that were not trained that is why.

    Args:
        parent: The run of the whole pipeline.
        candidates: Baseline and leaves.

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    lineages = {
        report.lineage[length - 1].name: report.lineage[:length]
        for report in (*candidates.reports.values(), *candidates.skipped.values())
        for length in range(1, len(report.lineage))
    }
    below = runs_below(parent)
    for stage, lineage in lineages.items():
        complete_stage(parent, below, stage, account_of_step(lineage), lineage[-1].mlflow_run_id)
    for leaf, report in candidates.reports.items():
        account = account_of_leaf(report, candidates.directories[leaf])
        complete_stage(parent, below, leaf, account, report.lineage[-1].mlflow_run_id)
    for leaf, skipped in candidates.skipped.items():
        account = account_of_skipped(skipped, candidates.directories[leaf])
        complete_stage(parent, below, leaf, account, skipped.lineage[-1].mlflow_run_id)


def leaf_table(decision: Decision) -> str:
    """The verdicts as a Markdown table, the winner in bold."""
    metric = decision.baseline.metric
    lines = [
        f"{_cell(decision.outcome)}",
        "",
        f"| leaf | pathway | {_cell(metric)} | drop | packed bytes | npu latency ms | verdict |",
        "|---|---|--:|--:|--:|--:|---|",
        f"| {_cell(decision.baseline.stage)} | | {_number(decision.baseline.value)} | "
        f"| {_whole(decision.baseline.figures.get('packed_bytes'))} | | fp32 baseline |",
        *(_row(verdict, decision.winner) for verdict in decision.verdicts),
    ]
    return "\n".join(lines)


def _row(verdict: Verdict, winner: str | None) -> str:
    name = f"**{_cell(verdict.leaf)}**" if verdict.leaf == winner else _cell(verdict.leaf)
    judged = f"{'qualified' if verdict.qualified else 'refused'}: " if verdict.trained else ""
    return (
        f"| {name} | {verdict.pathway} | {_number(verdict.metric)} | {_number(verdict.drop)} "
        f"| {_whole(verdict.figures.get('packed_bytes'))} | {_number(verdict.figures.get('npu_latency_ms'))} "
        f"| {judged}{_cell(verdict.reason)} |"
    )


def _metrics(decision: Decision) -> dict[str, float]:
    metrics: dict[str, float] = {
        "leaves": len(decision.verdicts),
        "trained_leaves": sum(verdict.trained for verdict in decision.verdicts),
        "qualified_leaves": sum(verdict.qualified for verdict in decision.verdicts),
    }
    if decision.baseline.value is not None:
        metrics[f"baseline_{decision.baseline.metric}"] = decision.baseline.value
    winner = next((verdict for verdict in decision.verdicts if verdict.leaf == decision.winner), None)
    if winner is not None:
        metrics |= winner.figures
        if winner.drop is not None:
            metrics["drop"] = winner.drop
    return metrics


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\n", " ")
