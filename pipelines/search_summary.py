"""How a search has ended: the summary, and how it is shown."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.records import LeafReport, StageRecord, validation_name
from collabopt.components.engine.search.budget import Budget, Used
from collabopt.components.engine.search.progress import Progress
from collabopt.components.engine.search.records import FrontLeaf, LeafOfTrial, SearchSummary, TrialSummary
from collabopt.components.engine.search.sharing import TrialStages
from collabopt.components.engine.search.space import Configuration

if TYPE_CHECKING:
    from collabopt.components.engine.gate.decision import Decision, Verdict
    from collabopt.components.engine.search.objectives import Objective


def summarize(
    progress: Progress,
    configurations: Mapping[int, Configuration],
    objectives: Sequence["Objective"],
    decision: "Decision",
    budget: Budget,
    used: Used,
    ended_by: str,
) -> SearchSummary:
    """Sums a search up.

    Args:
        progress: All trials that were answered.
        configurations: Number of each -> its configuration.
        objectives: Figures of the front.
        decision: The gate's, over all leaves.
        budget: What the search was allowed.
        used: What it has cost.
        ended_by: What ended it.
    """
    metric = decision.baseline.metric
    return SearchSummary(
        budget=budget,
        used=used,
        ended_by=ended_by,
        trainings=progress.trainings,
        trainings_without_sharing=progress.trainings_without_sharing,
        metric=metric,
        objectives=[each.name for each in objectives],
        winner=decision.winner,
        outcome=decision.outcome,
        failed=decision.failed,
        trials=[
            TrialSummary(number=number, configuration=configurations[number], leaves=_leaves(progress, stages, metric))
            for number, stages in progress.trials.items()
        ],
        front=_front(progress, configurations, objectives, decision),
    )


def print_search(console: Console, summary: SearchSummary) -> None:
    """Prints the front, what the search has cost and saved, and the winner."""
    console.print(_front_table(summary))
    share = summary.trainings / max(summary.trainings_without_sharing, 1)
    console.print(
        f"trainings: {summary.trainings} run, {summary.trainings_without_sharing} without sharing ({share:.2f})"
    )
    left_out = {leaf.leaf: leaf for trial in summary.trials for leaf in trial.leaves.values() if leaf.left_out}
    if left_out:
        console.print(f"leaves not trained: {len(left_out)}; the report says why")
    used, budget = summary.used, summary.budget
    console.print(
        f"used: {used.trials} of {budget.trials} trials, {used.epochs}{_of(budget.epochs)} epochs, "
        f"{used.minutes:.1f}{_of(budget.minutes)} minutes; ended by: {summary.ended_by}"
    )
    verdict = "no leaf qualifies" if summary.winner is None else f"winner: {summary.winner}"
    console.print(Text(verdict, style="bold yellow" if summary.winner is None else "bold green"))
    console.print(Text(summary.outcome), soft_wrap=True)


def _front(
    progress: Progress,
    configurations: Mapping[int, Configuration],
    objectives: Sequence["Objective"],
    decision: "Decision",
) -> list[FrontLeaf]:
    from collabopt.components.engine.gate.selection import Candidate, pareto_front
    from collabopt.components.engine.search.objectives import as_axes

    verdicts = {verdict.leaf: verdict for verdict in decision.verdicts}
    reports = {name: report for name, report in progress.all_leaves().items() if report.contract.holds}
    candidates = [Candidate(name, verdicts[name].figures) for name in reports]
    front = [candidate.name for candidate in pareto_front(candidates, as_axes(objectives))]
    best, higher = objectives[0].name, objectives[0].higher_is_better
    front.sort(key=lambda name: (-1 if higher else 1) * verdicts[name].figures.get(best, 0.0))
    return [_front_leaf(reports[name], verdicts[name], configurations, best) for name in front]


def _front_leaf(
    report: LeafReport, verdict: "Verdict", configurations: Mapping[int, Configuration], metric: str
) -> FrontLeaf:
    return FrontLeaf(
        leaf=report.name,
        configuration=dict(configurations[report.lineage[-1].trial or 0]),
        figures=dict(verdict.figures),
        validation=report.metrics.get(validation_name(metric)),
        qualified=verdict.qualified,
    )


def _leaves(progress: Progress, stages: TrialStages, metric: str) -> dict[str, LeafOfTrial]:
    return {
        place: LeafOfTrial(
            leaf=stage.name,
            validation=_validation(progress.records, stage.name, metric),
            left_out="" if stage.name in progress.records else progress.left_out.get(stage.name, "its parent was not"),
        )
        for place, stage in stages.items()
        if stage.is_leaf
    }


def _validation(records: Mapping[str, StageRecord], name: str, metric: str) -> float | None:
    return records[name].metrics.get(validation_name(metric)) if name in records else None


def _front_table(summary: SearchSummary) -> Table:
    caption = (
        f"{summary.metric}: on the test split, by which the gate decides; validation: the same, by which trials were "
        "proposed"
    )
    table = Table(
        title=Text("leaves that no other dominates", style="bold"),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=SIMPLE,
    )
    table.add_column("leaf", no_wrap=True)
    axes = list(dict.fromkeys(axis for leaf in summary.front for axis in leaf.configuration))
    for name in (*axes, summary.metric, "validation", *summary.objectives[1:], "gate"):
        table.add_column(name, justify="right", no_wrap=True)
    for leaf in summary.front:
        won = leaf.leaf == summary.winner
        table.add_row(
            Text(leaf.leaf, style="bold" if won else ""),
            *(_value(leaf.configuration.get(axis)) for axis in axes),
            _number(leaf.figures.get(summary.metric)),
            _number(leaf.validation),
            *(_number(leaf.figures.get(name)) for name in summary.objectives[1:]),
            "winner" if won else "qualified" if leaf.qualified else "refused",
        )
    return table


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:.4f}"


def _of(limit: float | None) -> str:
    return "" if limit is None else f" of {limit:g}"
