"""What a trial tells Optuna."""

from collections.abc import Iterable, Mapping, Sequence

from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.prescreen.records import Prediction
from collabopt.components.engine.records import LeafReport, StageRecord
from collabopt.components.engine.search.objectives import (
    Answer,
    Objective,
    answer_of,
    best_of,
    violations_of,
)
from collabopt.components.engine.search.study import Told

# Of a figure that is not known, where none is known to be as bad as.
_WORST = 1e12


def answer_of_trial(
    leaves: Mapping[str, LeafReport],
    predictions: Iterable[Prediction],
    baseline: StageRecord,
    policy: Policy,
) -> Answer:
    """The leaf that stands for a trial: of the trained ones, or, where none was, of the predicted ones.

    Args:
        leaves: The trained ones.
        predictions: Of all of them.
        baseline: Record of the baseline.
        policy: The policy.
    """
    trained = [answer_of(name, report, baseline, policy) for name, report in leaves.items()]
    if trained:
        return best_of(trained, policy, baseline)
    foreseen = [(each, violations_of(each.figures, baseline, policy)) for each in predictions]
    closest, violations = min(foreseen, key=lambda each: (bool(each[0].infeasible), sum(each[1]), each[0].leaf))
    return Answer(closest.leaf, closest.figures, violations, holds=False)


def told(answer: Answer, objectives: Sequence[Objective], others: Sequence[Answer]) -> Told:
    """An answer in numbers; what it does not know is as bad as the worst of the others.

    Args:
        answer: The trial's.
        objectives: What Optuna compares by.
        others: The answers of the trials before.
    """
    values = []
    for objective in objectives:
        worst = -_WORST if objective.higher_is_better else _WORST
        known = [each.figures[objective.name] for each in others if objective.name in each.figures]
        fallback = (min if objective.higher_is_better else max)(known, default=worst)
        values.append(answer.figures.get(objective.name, fallback))
    return Told(values, (*answer.violations, 0.0 if answer.holds else 1.0))
