"""Which leaves can still meet a policy, as far as that can be told before anything is trained."""

import math
from collections.abc import Iterable, Mapping

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.goals import judge_goal
from collabopt.components.engine.policy.policy import METRIC, Policy
from collabopt.components.engine.prescreen.branches import Branch
from collabopt.components.engine.prescreen.records import PREDICTABLE, Prediction
from collabopt.components.engine.records import MetricOfRecord
from collabopt.components.engine.techniques import TECHNIQUES

# How far a prediction may be off, as a share: a leaf that comes this close to a goal may still meet it. How far it is
# off, `collabopt prescreen --against` says.
PREDICTION_ERROR = 0.05


def missed_goals(prediction: Prediction, policy: Policy, baseline: Mapping[str, float]) -> list[str]:
    """Why a leaf cannot meet a policy: one sentence per goal that it misses by more than a prediction's error.

    Args:
        prediction: The leaf's.
        policy: The gate's policy; goals on metrics, and those against the champion, are left open.
        baseline: Figures of the fp32 baseline.

    Returns:
        The reasons with the predicted figures; empty where the leaf may well meet all goals, and where nothing is known
        of it.
    """
    if prediction.infeasible:
        return []
    metric = MetricOfRecord(name=METRIC, higher_is_better=True, baseline=math.nan)  # no predictable goal is about it
    # What the champion will be by then, nobody knows: every goal against it is met.
    references = {"baseline": baseline, "champion": None}
    # Of every predictable figure less is better.
    at_best = {name: value * (1 - PREDICTION_ERROR) for name, value in prediction.figures.items()}
    return [
        f"predicted {judge_goal(goal, metric, prediction.figures, references, prediction.npu_gap).reason}"
        for goal in policy.goals
        if goal.figure in PREDICTABLE and not judge_goal(goal, metric, at_best, references, prediction.npu_gap).met
    ]


def check_feasible(predictions: Iterable[Prediction], branches: Mapping[str, Branch]) -> None:
    """Refuses before any training what would be an error after it.

    Args:
        predictions: The leaves'.
        branches: Every stage.

    Raises:
        CollaboptError: A leaf without a training of its own cannot be made. How the others end, only training tells.
    """
    for each in predictions:
        if each.infeasible and not TECHNIQUES[branches[each.leaf].technique].trains:
            raise CollaboptError(
                f"leaf '{each.leaf}' cannot be made: {each.infeasible}",
                where=", ".join(f"{axis} {value}" for axis, value in each.configuration.items()) or "the model",
                todo="choose other values, or find out with prescreen=off how far the others come",
            )
