"""What a finished run amounts to: its leaves, the gate's decision, and how both are shown."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pydantic import ValidationError
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.gate.update import update_in_words
from collabopt.components.engine.policy.figures import UPDATE
from collabopt.components.engine.records import (
    DECISION_FILE,
    REPORT_FILE,
    SKIPPED_FILE,
    Contract,
    LeafReport,
    read_leaf_report,
    read_skipped,
)
from collabopt.components.engine.techniques import TECHNIQUES
from collabopt.pipelines.output_directory import LEAF_FILES


@dataclass(frozen=True)
class Leaf:
    """One leaf of a run.

    Attributes:
        directory: Where its files lie.
        report: What it says of itself.
    """

    directory: Path
    report: LeafReport

    @property
    def stage(self) -> str:
        """Name of the stage, in a search with the trial."""
        return self.report.name


@dataclass(frozen=True)
class Outcome:
    """Everything a run has measured and decided.

    Attributes:
        leaves: Leaves in order of stage name, those that were trained.
        decision: What the gate decided.
        decision_file: Where that lies.
        untrained: Leaf -> directory with what it has left, of those that were not trained.
    """

    leaves: tuple[Leaf, ...]
    decision: Decision
    decision_file: Path
    untrained: Mapping[str, Path] = field(default_factory=dict)

    @property
    def directories(self) -> dict[str, Path]:
        """Leaf -> directory with its files, or with what it has left untrained."""
        return {**{leaf.stage: leaf.directory for leaf in self.leaves}, **self.untrained}


def read_outcome(pipeline_root: Path) -> Outcome:
    """Finds leaves and decision among the artifacts of a run.

    Args:
        pipeline_root: Directory below which every task has left its outputs.

    Raises:
        CollaboptError: There is no decision, or a leaf is incomplete.
    """
    decisions = sorted(pipeline_root.rglob(DECISION_FILE), key=lambda path: path.stat().st_mtime)
    if not decisions:
        raise CollaboptError(
            "the pipeline ended without a decision of the deployment gate", todo="end the pipeline with a gate"
        )
    file = decisions[-1]
    try:
        decision = Decision.model_validate_json(file.read_bytes())
    except ValidationError as error:
        raise CollaboptError(
            f"the gate's decision does not read as one: {error.errors()[0]['msg']}",
            where=str(file),
            todo="the gate may come from another version of collabopt; install one version of both",
        ) from error
    return Outcome(leaves_below(pipeline_root), decision, file, untrained_below(pipeline_root))


def print_outcome(console: Console, outcome: Outcome, seconds: Mapping[str, float]) -> None:
    """Prints the leaf table, every verdict, and the winner.

    Args:
        console: Where to.
        outcome: What to print.
        seconds: Stage -> time it took.
    """
    console.print(_figures(outcome, seconds))
    console.print(_verdicts(outcome))
    winner = outcome.decision.winner
    verdict = "no leaf qualifies" if winner is None else f"winner: {winner}"
    console.print(Text(verdict, style="bold yellow" if winner is None else "bold green"))
    console.print(Text(outcome.decision.outcome), soft_wrap=True)
    for each in outcome.decision.verdicts:
        if each.leaf == winner and UPDATE in each.figures:
            console.print(Text(f"update: {update_in_words(outcome.decision, each)}"), soft_wrap=True)


def check_qualified(decision: Decision, directory: Path) -> None:
    """Ends with an error where no leaf qualifies and the policy lets the run fail over it.

    Args:
        decision: What the gate decided.
        directory: Where it has been written, or the leaves lie.

    Raises:
        CollaboptError: See above.
    """
    if decision.failed:
        raise CollaboptError(
            decision.outcome,
            where=str(directory),
            todo="nothing need be trained again to try another policy: collabopt gate --policy FILE",
        )


def leaves_below(directory: Path) -> tuple[Leaf, ...]:
    """The leaves that lie anywhere below a directory, in order of stage name; of two of one stage, the newer one.

    Raises:
        CollaboptError: A leaf is incomplete.
    """
    found: dict[str, Leaf] = {}
    for path in sorted(directory.rglob(REPORT_FILE), key=lambda path: path.stat().st_mtime):
        missing = [name for name in LEAF_FILES if not (path.parent / name).is_file()]
        leaf = Leaf(path.parent, read_leaf_report(path.parent))
        if missing:
            raise CollaboptError(
                f"leaf '{leaf.stage}' lacks {', '.join(missing)}",
                where=str(path.parent),
                todo="the component may come from another version of collabopt; install one version of both",
            )
        found[leaf.stage] = leaf
    return tuple(found[stage] for stage in sorted(found))


def untrained_below(directory: Path) -> dict[str, Path]:
    """Where the records of leaves that were not trained lie below a directory: leaf -> its directory.

    Raises:
        CollaboptError: A record does not read as one.
    """
    found = {}
    for path in sorted(directory.rglob(SKIPPED_FILE), key=lambda path: path.stat().st_mtime):
        record = read_skipped(path.parent)
        if record is not None and TECHNIQUES[record.technique].deploys:
            found[record.name] = path.parent
    return found


def _figures(outcome: Outcome, seconds: Mapping[str, float]) -> Table:
    baseline = outcome.decision.baseline
    title = f"leaves (baseline: {baseline.metric} {_figure(baseline.value, '.4f')})"
    has_champion = outcome.decision.champion is not None
    caption = (
        "model.tflite raw, gzip -9, and packed (model.tflite.gz)"
        + (", or a patch from the champion's file if that is smaller (update)" if has_champion else "")
        + "; zeros among its weights; most distinct weights in a tensor; what its ancestors claim; "
        "one inference on the NPU"
    )
    table = Table(
        title=Text(title, style="bold"), title_justify="left", caption=caption, caption_justify="left", box=SIMPLE
    )
    table.add_column("leaf", no_wrap=True)
    update = ["update"] if has_champion else []
    columns = [baseline.metric, "drop", "bytes", "gzip", "packed", *update, "zeros", "distinct", "claims", "npu ms"]
    for name in (*columns, "time") if seconds else columns:
        table.add_column(name, justify="right", no_wrap=True)
    figures = {verdict.leaf: verdict.figures for verdict in outcome.decision.verdicts}
    for leaf in outcome.leaves:
        report = leaf.report
        value = report.metrics.get(report.metric.name)
        table.add_row(
            Text(leaf.stage, style="bold" if leaf.stage == outcome.decision.winner else ""),
            _figure(value, ".4f"),
            _figure(None if value is None else report.metric.drop(value), "+.4f"),
            _figure(report.deployed.tflite_bytes, ",d"),
            _figure(report.deployed.gzip_bytes, ",d"),
            _figure(report.deployed.packed_bytes, ",d"),
            *([_figure(figures.get(leaf.stage, {}).get(UPDATE), ",.0f")] if has_champion else []),
            _figure(report.metrics.get("sparsity"), ".1%"),
            _figure(report.metrics.get("max_distinct_values_per_tensor"), ".0f"),
            _claims(report.contract),
            _figure(figures.get(leaf.stage, {}).get("npu_latency_ms"), ",.4f"),
            *([f"{_figure(seconds.get(leaf.stage), '.0f')} s"] if seconds else []),
        )
    columns_left = len(table.columns) - 2
    for verdict in outcome.decision.verdicts:
        if not verdict.trained:
            table.add_row(Text(verdict.leaf, style="dim"), Text("not trained", style="dim"), *["-"] * columns_left)
    return table


def _verdicts(outcome: Outcome) -> Table:
    table = Table("leaf", "verdict", "reason", title=Text("verdicts", style="bold"), title_justify="left", box=SIMPLE)
    for verdict in outcome.decision.verdicts:
        word, style = ("qualified", "green") if verdict.qualified else ("refused", "red")
        if not verdict.trained:
            word, style = "not trained", "dim"
        if verdict.leaf == outcome.decision.winner:
            word, style = "winner", "bold green"
        table.add_row(Text(verdict.leaf), Text(word, style=style), Text(verdict.reason.removeprefix("not trained: ")))
    return table


def _claims(contract: Contract) -> Text:
    if contract.broken:
        return Text("broken", style="bold red")
    return Text("hold" if contract.layers else "-")


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
