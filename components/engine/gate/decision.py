"""Which leaf is shipped, and why not the others. No input, no output: figures in, verdicts out."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.selection import Axis, Candidate, Selection, axes_of, figures_in_words, select
from collabopt.components.engine.gate.untrained import why_untrained
from collabopt.components.engine.policy.figures import (
    FIGURES,
    NPU,
    baseline_figures,
    figures_of,
    npu_gap,
    update_figures,
)
from collabopt.components.engine.policy.goals import GoalResult, difference_in_words, judge_goal
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.prescreen.records import Prescreen
from collabopt.components.engine.records import LeafReport, SkippedRecord, StageRecord
from collabopt.components.engine.release.names import DIGEST_SHOWN

# Broken layers that a verdict names; the report lists them all.
_LAYERS_NAMED = 3


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Verdict(_Frozen):
    """What the gate thinks of one leaf.

    Attributes:
        leaf: Name of the leaf.
        qualified: Whether it may be shipped: the contract holds and every goal is met.
        reason: Why it wins, loses or may not be shipped, with the figures that decided; several reasons are joined
            by `;`.
        on_front: Whether it is qualified and no other qualified leaf dominates it.
        dominated_by: A leaf on the front that is as good in everything and better in something; None where there is
            none, and for leaves that do not qualify.
        goals: What became of every goal, in the policy's order.
        pathway: `standard` or `collaborative`.
        techniques: Techniques from the baseline to the leaf.
        metric: Value of the deciding metric on the test split; None where it is missing or not finite.
        drop: How much worse than the baseline that is, negative when better; None as for `metric`.
        figures: Every finite figure of the leaf; those on an NPU other than the policy's are left out.
        accelerator: The NPU that the figures on the NPU are for; None where there are none.
        sha256: Digest of the file; "" where there is none.
        trained: Whether there is a file at all. Without one there are no figures, and the goals are not judged.
    """

    leaf: str
    qualified: bool
    reason: str
    on_front: bool = False
    dominated_by: str | None = None
    goals: tuple[GoalResult, ...] = ()
    pathway: str
    techniques: tuple[str, ...]
    metric: float | None
    drop: float | None
    figures: dict[str, FiniteFloat] = Field(default_factory=dict)
    accelerator: str | None = None
    sha256: str
    trained: bool = True


class Baseline(_Frozen):
    """What the leaves are compared with.

    Attributes:
        stage: Name of the baseline stage.
        metric: Name of the deciding metric.
        higher_is_better: Its direction.
        value: Its value for the fp32 baseline on the test split; None where it is not finite.
        dataset_digest: SHA-256 of the dataset's content.
        figures: Every finite figure of the baseline: the task's metrics, and the sizes of its float `.tflite`.
    """

    stage: str
    metric: str
    higher_is_better: bool
    value: float | None
    dataset_digest: str
    figures: dict[str, FiniteFloat] = Field(default_factory=dict)


class Champion(_Frozen):
    """The leaf that is shipped until now.

    Attributes:
        sha256: Digest of the file.
        leaf: Name under which it won.
        figures: Its finite figures, as its verdict had them.
        accelerator: The NPU that the figures on the NPU are for; None where that is not known, and not checked.
        dataset_digest: Dataset that its metrics were measured on; None where that is not known, and not checked.
    """

    sha256: str
    leaf: str
    figures: dict[str, FiniteFloat]
    accelerator: str | None = None
    dataset_digest: str | None = None


class Decision(_Frozen):
    """Outcome of the gate; `decision.json`.

    Attributes:
        schema_version: Version of this layout.
        policy: The policy that was applied.
        baseline: What the leaves were compared with.
        champion: What else they were compared with; None where there was none yet.
        winner: Name of the leaf to ship; None when none qualifies.
        winner_sha256: Digest of its file; None without a winner.
        outcome: One sentence that says what was decided and why.
        verdicts: One per leaf, by name.
    """

    schema_version: int = 2
    policy: Policy
    baseline: Baseline
    champion: Champion | None = None
    winner: str | None
    winner_sha256: str | None
    outcome: str
    verdicts: tuple[Verdict, ...]

    @property
    def failed(self) -> bool:
        """Whether the policy wants the run to fail over it."""
        return self.winner is None and self.policy.when_none_qualifies == "fail"


def decide(
    baseline: StageRecord,
    leaves: Mapping[str, LeafReport],
    policy: Policy,
    champion: Champion | None = None,
    withdrawn: Collection[str] = (),
    delta_bytes: Mapping[str, int] | None = None,
    untrained: Mapping[str, SkippedRecord] = MappingProxyType({}),
    predicted: Prescreen | None = None,
) -> Decision:
    """Judges every leaf and picks the one to ship.

    A leaf qualifies when it is comparable, keeps its contract, was not rolled back and meets every goal. Of those the
    policy's priority picks one; see `select`. The order of `leaves` does not matter.

    Args:
        baseline: Record of the fp32 baseline.
        leaves: Name of a leaf -> its report.
        policy: Goals and priority.
        champion: The leaf that is shipped until now; None for none, which meets every goal against it.
        withdrawn: Digests of files that were rolled back and must not be shipped again.
        delta_bytes: Leaf -> size of the smallest patch from the champion's file; none without a champion.
        untrained: Name of a leaf that was not trained -> its record.
        predicted: What was predicted before training; None where nothing was.

    Raises:
        CollaboptError: The policy names figures on the NPU, and the leaves were measured for several.
    """
    _check_one_npu(leaves, policy)
    known = baseline_figures(baseline)
    references = {"baseline": known, "champion": _champion_figures(champion, leaves, baseline, policy)}
    deltas = delta_bytes or {}
    judged = [
        _judge(name, leaves[name], baseline, policy, references, withdrawn, deltas.get(name)) for name in sorted(leaves)
    ]
    judged += [
        _not_trained(name, record, why_untrained(record, policy, known, predicted))
        for name, record in untrained.items()
    ]
    judged.sort(key=lambda verdict: verdict.leaf)
    candidates = [Candidate(each.leaf, each.figures, len(each.techniques)) for each in judged if each.qualified]
    axes = axes_of(policy, baseline.metric)
    selection = select(candidates, axes, baseline.metric)
    verdicts = tuple(_placed(verdict, selection) for verdict in judged)
    winner = next((verdict for verdict in verdicts if verdict.leaf == selection.winner), None)
    return Decision(
        policy=policy,
        baseline=Baseline(
            stage=baseline.stage,
            metric=baseline.metric.name,
            higher_is_better=baseline.metric.higher_is_better,
            value=_finite(baseline.metric.baseline),
            dataset_digest=baseline.dataset_digest,
            figures=known,
        ),
        champion=champion,
        winner=winner.leaf if winner else None,
        winner_sha256=winner.sha256 if winner else None,
        outcome=_outcome(winner, verdicts, axes, baseline.metric.name, champion, policy),
        verdicts=verdicts,
    )


def _judge(
    name: str,
    report: LeafReport,
    baseline: StageRecord,
    policy: Policy,
    references: Mapping[str, Mapping[str, float] | None],
    withdrawn: Collection[str],
    delta_bytes: int | None,
) -> Verdict:
    metric = baseline.metric
    figures = {**figures_of(report, policy.accelerator), **update_figures(report.deployed, delta_bytes)}
    value = _finite(report.metrics.get(metric.name))
    refusals = [refusal for check in CHECKS if (refusal := check(report, baseline))]
    if report.deployed.sha256 in withdrawn:
        refusals.append(f"it was rolled back: a file of digest {report.deployed.sha256[:DIGEST_SHOWN]} is withdrawn")
    no_npu = npu_gap(report, policy.accelerator)
    goals = tuple(judge_goal(goal, metric, figures, references, no_npu) for goal in policy.goals)
    # That the deciding metric is missing has been said by then.
    missed = [goal.reason for goal in goals if not goal.met and (value is not None or goal.figure != metric.name)]
    return Verdict(
        leaf=name,
        qualified=not refusals and all(goal.met for goal in goals),
        reason="; ".join(refusals + missed),
        goals=goals,
        pathway=report.pathway,
        techniques=tuple(step.technique for step in report.lineage),
        metric=value,
        drop=None if value is None else _finite(metric.drop(value)),
        figures=figures,
        accelerator=report.footprint.npu.accelerator if report.footprint is not None and not no_npu else None,
        sha256=report.deployed.sha256,
    )


def _not_trained(name: str, record: SkippedRecord, reason: str) -> Verdict:
    return Verdict(
        leaf=name,
        qualified=False,
        reason=f"not trained: {reason}",
        pathway=record.pathway,
        techniques=tuple(step.technique for step in record.lineage),
        metric=None,
        drop=None,
        sha256="",
        trained=False,
    )


def _placed(verdict: Verdict, selection: Selection) -> Verdict:
    if not verdict.qualified:
        return verdict
    place = {
        "reason": f"every goal is met; {selection.reasons[verdict.leaf]}",
        "on_front": verdict.leaf not in selection.dominated,
        "dominated_by": selection.dominated.get(verdict.leaf),
    }
    return verdict.model_copy(update=place)


def _check_one_npu(leaves: Mapping[str, LeafReport], policy: Policy) -> None:
    named = {goal.figure for goal in policy.goals} | {preference.figure for preference in policy.priority}
    if not any(name.startswith(NPU) for name in named):
        return
    measured = [leaf.footprint.npu for leaf in leaves.values() if leaf.footprint is not None]
    targets = sorted(
        {
            f"{npu.accelerator} ({npu.system_config}, {npu.memory_mode})"
            for npu in measured
            if policy.accelerator in (None, npu.accelerator)
        }
    )
    if len(targets) > 1:
        raise CollaboptError(
            f"the policy names figures on the NPU, but the leaves were measured for several: {', '.join(targets)}",
            where="policy and footprints",
            todo="name one as `accelerator` in the policy, or measure all leaves for the same",
        )


def _champion_figures(
    champion: Champion | None, leaves: Mapping[str, LeafReport], baseline: StageRecord, policy: Policy
) -> dict[str, float] | None:
    """What of the champion's figures can be compared; None without a champion."""
    if champion is None:
        return None
    measured = {leaf.footprint.npu.accelerator for leaf in leaves.values() if leaf.footprint is not None}
    wanted = {policy.accelerator} if policy.accelerator else measured
    other_npu = champion.accelerator is not None and champion.accelerator not in wanted
    other_data = champion.dataset_digest not in (None, baseline.dataset_digest)
    return {
        name: value
        for name, value in champion.figures.items()
        if not (other_npu and name.startswith(NPU)) and not (other_data and name not in FIGURES)
    }


def _refuse_incomparable(report: LeafReport, baseline: StageRecord) -> str | None:
    if report.dataset_digest != baseline.dataset_digest:
        return "it was measured on another dataset than the baseline"
    if (report.metric.name, report.metric.higher_is_better) != (baseline.metric.name, baseline.metric.higher_is_better):
        return f"it decides on metric '{report.metric.name}', the baseline on '{baseline.metric.name}'"
    if report.lineage[0] != baseline.lineage[0] or report.metric.baseline != baseline.metric.baseline:
        return "it was made from another baseline"
    if report.task != baseline.task:
        return f"its task is '{report.task}', that of the baseline '{baseline.task}'"
    return None


def _refuse_broken(report: LeafReport, baseline: StageRecord) -> str | None:
    broken = report.contract.broken
    if not broken:
        return None
    named = "; ".join(f"'{each.layer}': {each.what}" for each in broken[:_LAYERS_NAMED])
    more = f"; and {len(broken) - _LAYERS_NAMED} more" if len(broken) > _LAYERS_NAMED else ""
    return f"broken: the file does not keep what its ancestors won ({named}{more})"


def _refuse_unmeasured(report: LeafReport, baseline: StageRecord) -> str | None:
    name = baseline.metric.name
    if name not in report.metrics:
        return f"it reports no '{name}'"
    value = report.metrics[name]
    if not math.isfinite(value) or not math.isfinite(baseline.metric.baseline):
        return f"'{name}' is {value} and {baseline.metric.baseline} in the baseline, which cannot be compared"
    return None


# (report, baseline) -> why the leaf may not be shipped whatever the policy says, None if it may.
CHECKS: tuple[Callable[[LeafReport, StageRecord], str | None], ...] = (
    _refuse_incomparable,
    _refuse_broken,
    _refuse_unmeasured,
)


def _outcome(
    winner: Verdict | None,
    verdicts: Sequence[Verdict],
    axes: Sequence[Axis],
    metric: str,
    champion: Champion | None,
    policy: Policy,
) -> str:
    if winner is None:
        stays = f"; '{champion.leaf}' stays the champion" if champion else ""
        fails = "; the policy lets the run fail over it" if policy.when_none_qualifies == "fail" else ""
        return f"none of {len(verdicts)} leaves qualifies{_untrained(verdicts)}; nothing is shipped{stays}{fails}"
    qualified = sum(verdict.qualified for verdict in verdicts)
    what = "stays the champion" if champion and champion.sha256 == winner.sha256 else "is shipped"
    others = f"of {qualified} qualified leaves ({len(verdicts)} in all{_untrained(verdicts)}) it ranks first by"
    if qualified == 1:
        others = f"{_all_of(verdicts)} it alone qualifies, with" if len(verdicts) > 1 else "the only leaf, with"
        axes = [replace(axis, within=0.0) for axis in axes]  # there is nothing to come close to
    return (
        f"'{winner.leaf}' {what}: {others} {figures_in_words(winner.figures, axes)}; {metric} is "
        f"{difference_in_words(metric, -(winner.drop or 0.0), 'baseline')}"
    )


def _all_of(verdicts: Sequence[Verdict]) -> str:
    untrained = _untrained(verdicts)
    return f"of {len(verdicts)} leaves{untrained}{',' if untrained else ''}"


def _untrained(verdicts: Sequence[Verdict]) -> str:
    count = sum(not verdict.trained for verdict in verdicts)
    return f", {count} of them not trained" if count else ""


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
