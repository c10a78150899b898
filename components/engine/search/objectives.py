"""What a search wants: the figures of the gate's policy, with the metric as the validation split has it.

The gate decides by test figures. Were proposals driven by them too, the search would fit the test split; so a leaf's
metric is estimated as the baseline's figure, plus what the leaf gains or loses on validation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from collabopt.components.engine.gate.selection import Axis, Candidate, axes_of, select
from collabopt.components.engine.policy.amounts import share_of
from collabopt.components.engine.policy.figures import FIGURES, baseline_figures, figures_of
from collabopt.components.engine.policy.goals import GoalResult, direction_of, figure_of, judge_goal
from collabopt.components.engine.policy.policy import Goal, Policy
from collabopt.components.engine.records import LeafReport, StageRecord, validation_name

# An fp32 model that is this far below what a goal on the metric demands, as a share of the baseline's value, will not
# be brought back by a few epochs of what comes after it.
RECOVERABLE = "10%"


@dataclass(frozen=True)
class Objective:
    """A figure that trials are compared by.

    Attributes:
        name: The figure, the task's own name for the deciding metric.
        higher_is_better: Its direction.
    """

    name: str
    higher_is_better: bool


@dataclass(frozen=True)
class Answer:
    """What a leaf comes to by the policy, as far as validation tells.

    Attributes:
        leaf: Its name.
        figures: Its figures, those of the task's metrics estimated.
        violations: One per goal that is not about the champion: how far it is missed, as a share of its bound; 0 where
            it is met.
        holds: Whether the leaf keeps its contract.
        techniques: Techniques from the baseline to the leaf.
    """

    leaf: str
    figures: Mapping[str, float]
    violations: tuple[float, ...]
    holds: bool = True
    techniques: int = 0

    @property
    def qualifies(self) -> bool:
        """Whether it would pass the gate."""
        return self.holds and not any(self.violations)


def objectives_of(policy: Policy, baseline: StageRecord) -> tuple[Objective, ...]:
    """The task's deciding metric, and every figure that the policy ranks by or has a goal for, each once."""
    metric = baseline.metric
    found = {metric.name: metric.higher_is_better}
    for entry in (*policy.priority, *policy.goals):
        if _is_known_before_the_gate(entry.figure):
            found[figure_of(entry.figure, metric)] = direction_of(entry.figure, entry.higher_is_better, metric)
    return tuple(Objective(name, higher) for name, higher in found.items())


def answer_of(leaf: str, report: LeafReport, baseline: StageRecord, policy: Policy) -> Answer:
    """Judges a trained leaf by validation.

    Goals against the champion are left to the gate: who that will be by then, nobody knows.
    """
    measured = figures_of(report, policy.accelerator)
    figures = {name: value for name, value in measured.items() if name in FIGURES}
    figures |= estimated_metrics(report, baseline)
    return Answer(
        leaf,
        figures,
        violations_of(figures, baseline, policy),
        report.contract.holds,
        len(report.lineage) - 1,
    )


def estimated_metrics(record: StageRecord, baseline: StageRecord) -> dict[str, float]:
    """The task's metrics that a stage would have on test, if it gained or lost there what it does on validation."""
    known = baseline_figures(baseline)
    return {
        name: known[name] + record.metrics[on_validation] - baseline.metrics[on_validation]
        for name in known
        if (on_validation := validation_name(name)) in record.metrics and on_validation in baseline.metrics
    }


def violations_of(figures: Mapping[str, float], baseline: StageRecord, policy: Policy) -> tuple[float, ...]:
    """See `Answer.violations`; 1 for a goal whose figure is not known, as that on the metric of an untrained leaf."""
    return tuple(_violation(result) for result in _judged(policy, baseline, figures))


def best_of(answers: Sequence[Answer], policy: Policy, baseline: StageRecord) -> Answer:
    """The leaf that stands for a trial: the gate's choice among them, or the one that misses least."""
    qualified = {answer.leaf: answer for answer in answers if answer.qualifies}
    candidates = [Candidate(each.leaf, each.figures, each.techniques) for each in qualified.values()]
    winner = select(candidates, axes_of(policy, baseline.metric), baseline.metric).winner
    if winner is not None:
        return qualified[winner]
    return min(answers, key=lambda each: (not each.holds, sum(each.violations), each.leaf))


def why_hopeless(record: StageRecord, baseline: StageRecord, policy: Policy) -> str:
    """Why nothing below an fp32 stage can meet the goals on the deciding metric; "" where something may.

    The rule of the search in the place of Optuna's pruners, which know one objective only: the stage's metric, on the
    validation split, misses a goal by more than `RECOVERABLE`.
    """
    metric = baseline.metric
    estimated = estimated_metrics(record, baseline)
    margin = share_of(RECOVERABLE, metric.baseline)
    hopeful = {name: value + (margin if metric.higher_is_better else -margin) for name, value in estimated.items()}
    for result in _judged(policy, baseline, hopeful):
        if result.figure == metric.name and metric.name in estimated and not result.met:
            return (
                f"'{record.name}' has come to {metric.name} {estimated[metric.name]:.4f}, estimated on the validation "
                f"split, and the goal is {result.goal}"
            )
    return ""


def as_axes(objectives: Sequence[Objective]) -> tuple[Axis, ...]:
    """Objectives as the gate's selection has them."""
    return tuple(Axis(each.name, each.higher_is_better) for each in objectives)


def _judged(policy: Policy, baseline: StageRecord, figures: Mapping[str, float]) -> list[GoalResult]:
    references = {"baseline": baseline_figures(baseline), "champion": None}
    goals = [goal for goal in policy.goals if _is_open_to_search(goal)]
    return [judge_goal(goal, baseline.metric, figures, references) for goal in goals]


def _is_known_before_the_gate(figure: str) -> bool:
    return figure not in FIGURES or (FIGURES[figure].tells_apart and not FIGURES[figure].of_update)


def _is_open_to_search(goal: Goal) -> bool:
    """Goals that take the champion are left to the gate."""
    of_update = goal.figure in FIGURES and FIGURES[goal.figure].of_update
    return goal.reference != "champion" and not of_update


def _violation(result: GoalResult) -> float:
    if result.met:
        return 0.0
    if result.value is None or result.bound is None:
        return 1.0
    return abs(result.value - result.bound) / max(abs(result.bound), 1e-9)
