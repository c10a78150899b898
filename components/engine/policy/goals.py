"""Whether a leaf keeps a goal of the policy, and one sentence that says so with the figures."""

import math
from collections.abc import Mapping

from pydantic import BaseModel, ConfigDict

from collabopt.components.engine.policy.amounts import share_of
from collabopt.components.engine.policy.figures import DELTA, FIGURES, NPU, higher_is_better, in_words
from collabopt.components.engine.policy.policy import METRIC, Goal
from collabopt.components.engine.records import MetricOfRecord

# 0.91 - 0.89 is 0.020000000000000018: a drop of exactly the limit must pass. No figure is measured this finely.
TOLERANCE = 1e-9


class GoalResult(BaseModel):
    """What became of one goal on one leaf.

    Attributes:
        goal: The goal in words.
        figure: Name of its figure, the task's own where the policy says `metric`.
        met: Whether the leaf keeps it.
        value: The leaf's figure; None where it has none or none that is finite.
        reference: The same of what it is compared with; None where there is nothing, or for a threshold.
        bound: The value that would just do, in the figure's unit; None where it takes a reference that is missing.
        reason: One sentence with the figures.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    goal: str
    figure: str
    met: bool
    value: float | None
    reference: float | None
    bound: float | None
    reason: str


def judge_goal(
    goal: Goal,
    metric: MetricOfRecord,
    figures: Mapping[str, float],
    references: Mapping[str, Mapping[str, float] | None],
    no_npu: str = "",
) -> GoalResult:
    """Judges one goal on one leaf. What is missing on the leaf's side, or in a reference that is there, is not met.

    Args:
        goal: The goal.
        metric: The task's deciding metric.
        figures: Figures of the leaf, finite ones.
        references: `baseline` and `champion` -> their figures; None for a champion that there is not yet, against
            which every goal is met.
        no_npu: Why the leaf has no figures on the NPU; "" where it has some, or nothing is known.
    """
    name = figure_of(goal.figure, metric)
    higher = direction_of(goal.figure, goal.higher_is_better, metric)
    words, value = _in_words(goal, name, higher), figures.get(name)
    against = references[goal.reference] if goal.reference else None
    reference = against.get(name) if against is not None else None
    bound = _bound(goal, higher, reference)
    finite = bound if bound is not None and math.isfinite(bound) else None

    def result(met: bool, reason: str) -> GoalResult:
        return GoalResult(
            goal=words, figure=name, met=met, value=value, reference=reference, bound=finite, reason=reason
        )

    if value is None and name == DELTA and references["champion"] is None:
        return result(True, "there is no champion yet to make a patch from")
    if value is None:
        why = f" ({no_npu})" if no_npu and name.startswith(NPU) else ""
        return result(False, f"it has no '{name}'{why}; the goal is {words}")
    shown = f"'{name}' is {in_words(name, value)}"
    if goal.kind == "threshold":
        return result(_reaches(value, bound, higher, 0.0), f"{shown}; {_accepted(goal, name, higher)}")
    if against is None:
        return result(True, f"{shown}; there is no {goal.reference} yet to compare it with")
    if reference is None or bound is None:
        return result(False, f"{shown}, but the {goal.reference} has no '{name}' that it could be compared with")
    met = _reaches(value, bound, higher, TOLERANCE * max(abs(value), abs(reference)))
    better = value - reference if higher else reference - value
    if goal.kind == "min_improvement" and share_of(goal.limit, 1.0) > 0:
        met = met and better > 0  # five percent of zero are no improvement
    compared = (
        f"{shown}, the {goal.reference}'s {in_words(name, reference)}"
        if goal.kind == "max_ratio"
        else f"{shown}, {difference_in_words(name, better, goal.reference or '')}"
    )
    return result(met, f"{compared}; {_accepted(goal, name, higher)}")


def figure_of(name: str, metric: MetricOfRecord) -> str:
    """The real name of a figure of the policy, which may say `metric`."""
    return metric.name if name == METRIC else name


def direction_of(name: str, given: bool | None, metric: MetricOfRecord) -> bool:
    """Whether a figure of the policy is better high."""
    known = higher_is_better(figure_of(name, metric), metric)
    return bool(given) if known is None else known


def difference_in_words(name: str, better: float, than: str) -> str:
    """`0.0100 worse than the baseline`.

    Args:
        name: The figure.
        better: How much better the value is, negative where it is worse.
        than: What it is compared with.
    """
    if not better:
        return f"as good as the {than}"
    return f"{in_words(name, abs(better))} {'better' if better > 0 else 'worse'} than the {than}"


def _bound(goal: Goal, higher: bool, reference: float | None) -> float | None:
    if goal.threshold is not None:
        return goal.threshold
    if reference is None:
        return None
    if goal.max_ratio is not None:
        # A multiple of something negative would be a limit that is kept by being worse.
        return None if reference < 0 else goal.max_ratio * reference
    change = share_of(goal.limit, reference)
    return reference + change if higher == (goal.kind == "min_improvement") else reference - change


def _reaches(value: float, bound: float | None, higher: bool, slack: float) -> bool:
    return bound is not None and (value >= bound - slack if higher else value <= bound + slack)


def _in_words(goal: Goal, name: str, higher: bool) -> str:
    limit = _limit(goal, name)
    if goal.kind == "threshold":
        return f"{name} of at {'least' if higher else 'most'} {limit}"
    if goal.kind == "max_drop":
        return f"{name} at most {limit} worse than the {goal.reference}"
    if goal.kind == "max_ratio":
        return f"{name} at most {limit} times the {goal.reference}'s"
    return f"{name} at least {limit} better than the {goal.reference}"


def _accepted(goal: Goal, name: str, higher: bool) -> str:
    limit = _limit(goal, name)
    if goal.kind == "threshold":
        return f"required is at least {limit}" if higher else f"accepted is at most {limit}"
    if goal.kind == "max_ratio":
        return f"accepted is at most {limit} times that"
    return f"required is at least {limit}" if goal.kind == "min_improvement" else f"accepted is at most {limit}"


def _limit(goal: Goal, name: str) -> str:
    if isinstance(goal.limit, str):
        return goal.limit
    return f"{goal.limit:g}" if name not in FIGURES or goal.kind == "max_ratio" else in_words(name, goal.limit)
