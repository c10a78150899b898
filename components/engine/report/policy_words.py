"""The policy as people say it."""

from dataclasses import dataclass

from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.policy.figures import FIGURES
from collabopt.components.engine.policy.policy import METRIC, Preference

_NONE_QUALIFIES = {
    "keep": "If no leaf qualifies, the champion stays what it is and the run ends well.",
    "fail": "If no leaf qualifies, the champion stays what it is and the run fails.",
}


@dataclass(frozen=True)
class GoalRow:
    """One goal.

    Attributes:
        goal: In words.
        kept_by: Leaves that keep it.
        missed_by: Leaves that do not.
    """

    goal: str
    kept_by: tuple[str, ...]
    missed_by: tuple[str, ...]


def goal_rows(decision: Decision) -> list[GoalRow]:
    """The policy's goals in its order, with the leaves that keep each of them."""
    rows = []
    for position in range(len(decision.policy.goals)):
        judged = {each.leaf: each.goals[position] for each in decision.verdicts if position < len(each.goals)}
        rows.append(
            GoalRow(
                goal=next((result.goal for result in judged.values()), decision.policy.goals[position].figure),
                kept_by=tuple(leaf for leaf, result in judged.items() if result.met),
                missed_by=tuple(leaf for leaf, result in judged.items() if not result.met),
            )
        )
    return rows


def priority_in_words(decision: Decision) -> list[str]:
    """What leaves are ranked by, the first first."""
    return [_preference(each, decision) for each in decision.policy.priority]


def front_figures(decision: Decision) -> list[str]:
    """The figures in which leaves dominate one another, each once: those of the priority, and the deciding metric."""
    metric = decision.baseline.metric
    named = [metric if each.figure == METRIC else each.figure for each in decision.policy.priority]
    return list(dict.fromkeys([*named, metric]))


def none_qualifies_in_words(decision: Decision) -> str:
    """What happens when there is nothing to ship."""
    return _NONE_QUALIFIES[decision.policy.when_none_qualifies]


def _preference(preference: Preference, decision: Decision) -> str:
    name = decision.baseline.metric if preference.figure == METRIC else preference.figure
    if name == decision.baseline.metric:
        higher, what = decision.baseline.higher_is_better, "the task's deciding metric"
    elif name in FIGURES:
        higher, what = FIGURES[name].higher_is_better, FIGURES[name].what
    else:
        higher, what = bool(preference.higher_is_better), "a metric of the task"
    within = preference.within
    tie = (
        f"; within {within if isinstance(within, str) else f'{within:g}'} of the best counts as equal" if within else ""
    )
    return f"{'highest' if higher else 'lowest'} {name} ({what}){tie}"
