"""Which of the qualified leaves is shipped: Pareto front, priority, tie-break. Figures in, names and reasons out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from collabopt.components.engine.policy.amounts import share_of
from collabopt.components.engine.policy.figures import in_words
from collabopt.components.engine.policy.goals import TOLERANCE, direction_of, figure_of
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.records import MetricOfRecord


@dataclass(frozen=True)
class Axis:
    """A figure that ranks.

    Attributes:
        name: Name of the figure, the task's own where the policy says `metric`.
        higher_is_better: Its direction.
        within: What comes this close to the best counts as equal: in the figure's unit, or as a share of the best.
    """

    name: str
    higher_is_better: bool
    within: float | str = 0.0


@dataclass(frozen=True)
class Candidate:
    """A qualified leaf.

    Attributes:
        name: Its name.
        figures: Its figures. One that is missing or not finite ranks below every other.
        techniques: How many techniques made it.
    """

    name: str
    figures: Mapping[str, float]
    techniques: int = 0


@dataclass(frozen=True)
class Selection:
    """What was chosen, and why not the others.

    Attributes:
        winner: Name of the candidate to ship; None where there is no candidate.
        reasons: Name -> one sentence with the figures that decided, for every candidate.
        dominated: Name -> name of a candidate on the front that is as good in everything and better in something.
    """

    winner: str | None = None
    reasons: dict[str, str] = field(default_factory=dict)
    dominated: dict[str, str] = field(default_factory=dict)


def axes_of(policy: Policy, metric: MetricOfRecord) -> tuple[Axis, ...]:
    """The axes of a policy's priority, first one first."""
    return tuple(
        Axis(
            figure_of(preference.figure, metric),
            direction_of(preference.figure, preference.higher_is_better, metric),
            preference.within,
        )
        for preference in policy.priority
    )


def select(candidates: Sequence[Candidate], priority: Sequence[Axis], metric: MetricOfRecord) -> Selection:
    """Picks one candidate; neither their order nor copies of one under other names change which figures win.

    Args:
        candidates: Leaves that keep the contract and every goal, of different names.
        priority: What they are ranked by. Of those on the Pareto front, the ones that are best in the first axis, or
            within its margin of the best, go on to the second, etc. What is left at the end is decided by the number
            of techniques, then by name.
        metric: The deciding metric, an axis of the front even where the priority leaves it out.
    """
    if not candidates:
        return Selection()
    axes = (*priority, Axis(metric.name, metric.higher_is_better))
    dominated: dict[str, str] = {}
    reasons: dict[str, str] = {}
    front = pareto_front(candidates, axes)
    for candidate in candidates:
        better = [other for other in front if dominates(other, candidate, axes)]
        if better:
            best = _best(better, priority)
            dominated[candidate.name] = best.name
            reasons[candidate.name] = f"dominated by '{best.name}': {_worse(candidate, best, axes)}"
    left = front
    for axis in priority:
        best = _best(left, (axis,))
        near = [candidate for candidate in left if _is_near(candidate, best, axis)]
        for candidate in left:
            if candidate not in near:
                reasons[candidate.name] = f"'{best.name}' is better in {_beside(candidate, best, axis)}{_margin(axis)}"
        left = near
    winner = min(left, key=_break_tie)
    for candidate in left:
        reasons[candidate.name] = f"as good as '{winner.name}' by the priority, which {_tie(candidate, winner)}"
    reasons[winner.name] = f"first by the priority: {figures_in_words(winner.figures, axes)}"
    return Selection(winner.name, reasons, dominated)


def pareto_front(candidates: Sequence[Candidate], axes: Sequence[Axis]) -> list[Candidate]:
    """Those that no other dominates. Equal ones do not dominate one another."""
    return [each for each in candidates if not any(dominates(other, each, axes) for other in candidates)]


def dominates(one: Candidate, other: Candidate, axes: Sequence[Axis]) -> bool:
    """Whether one is at least as good on every axis and better on one."""
    pairs = [(_goodness(one, axis), _goodness(other, axis)) for axis in axes]
    return all(mine >= its for mine, its in pairs) and any(mine > its for mine, its in pairs)


def figures_in_words(figures: Mapping[str, float], axes: Sequence[Axis]) -> str:
    """`packed_bytes 1,234 B (within 1% counts as equal), then accuracy 0.9000`; what two axes share is said once."""
    first = {axis.name: axis for axis in reversed(axes)}
    once = [axis for axis in axes if first[axis.name] is axis]
    return ", then ".join(f"{axis.name} {_value(figures, axis)}{_equal(axis)}" for axis in once)


def _goodness(candidate: Candidate, axis: Axis) -> float:
    """Larger is better; -inf for what is missing or not finite."""
    value = candidate.figures.get(axis.name, math.nan)
    if not math.isfinite(value):
        return -math.inf
    return value if axis.higher_is_better else -value


def _is_near(candidate: Candidate, best: Candidate, axis: Axis) -> bool:
    most, value = _goodness(best, axis), _goodness(candidate, axis)
    if not math.isfinite(most) or not math.isfinite(value):
        return most == value
    margin = share_of(axis.within, most)
    return value >= most - margin - (TOLERANCE * abs(most) if margin else 0.0)


def _best(candidates: Sequence[Candidate], axes: Sequence[Axis]) -> Candidate:
    return min(candidates, key=lambda each: (tuple(-_goodness(each, axis) for axis in axes), _break_tie(each)))


def _break_tie(candidate: Candidate) -> tuple[int, str]:
    return candidate.techniques, candidate.name


def _worse(candidate: Candidate, best: Candidate, axes: Sequence[Axis]) -> str:
    worse = {axis.name: axis for axis in axes if _goodness(candidate, axis) < _goodness(best, axis)}
    return "; ".join(_beside(candidate, best, axis) for axis in worse.values())


def _beside(candidate: Candidate, best: Candidate, axis: Axis) -> str:
    return f"{axis.name}, {_value(best.figures, axis)} against {_value(candidate.figures, axis)}"


def _value(figures: Mapping[str, float], axis: Axis) -> str:
    value = figures.get(axis.name, math.nan)
    return in_words(axis.name, value) if math.isfinite(value) else "unknown"


def _margin(axis: Axis) -> str:
    return f", by more than {_within(axis)}" if share_of(axis.within, 1.0) else ""


def _equal(axis: Axis) -> str:
    return f" (within {_within(axis)} counts as equal)" if share_of(axis.within, 1.0) else ""


def _within(axis: Axis) -> str:
    return axis.within if isinstance(axis.within, str) else in_words(axis.name, axis.within)


def _tie(candidate: Candidate, winner: Candidate) -> str:
    if candidate.techniques > winner.techniques:
        return f"takes fewer techniques, {winner.techniques} against {candidate.techniques}"
    return f"comes first by name, both with {winner.techniques} techniques"
