"""Which goals a prediction can miss, and which are left to training."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.prescreen.branches import Branch
from collabopt.components.engine.prescreen.judgement import check_feasible, missed_goals
from collabopt.components.engine.prescreen.records import Prediction
from collabopt.pipelines.tree import TREE

BASELINE = {"packed_bytes": 40_000.0, "zip_bytes": 42_000.0}
BRANCHES = {stage.name: Branch(stage.parent, stage.technique.name) for stage in TREE}
FIGURES = {"packed_bytes": 10_000.0, "zip_bytes": 11_000.0, "npu_latency_ms": 0.05}


def prediction(figures=FIGURES, leaf="pqat", **fields):
    return Prediction(
        leaf=leaf, configuration={"sparsity": 0.5}, accelerator="ethos-u55-128", figures=figures, **fields
    )


def missed(goals, **fields):
    return missed_goals(prediction(**fields), parse_policy(f"goals: {goals}"), BASELINE)


@pytest.mark.parametrize(
    ("goal", "reason"),
    [
        (
            "{figure: packed_bytes, threshold: 9000}",
            "predicted 'packed_bytes' is 10,000 B; accepted is at most 9,000 B",
        ),
        ("{figure: packed_bytes, max_ratio: 0.2}", "predicted 'packed_bytes' is 10,000 B, the baseline's 40,000 B"),
        ("{figure: packed_bytes, min_improvement: 90%}", "predicted 'packed_bytes' is 10,000 B, 30,000 B better"),
        (
            "{figure: npu_latency_ms, threshold: 0.04}",
            "predicted 'npu_latency_ms' is 0.05 ms; accepted is at most 0.04 ms",
        ),
    ],
)
def test_a_goal_that_is_missed_by_far_is_told_with_the_predicted_figure(goal, reason):
    (told,) = missed(f"[{goal}]")
    assert told.startswith(reason)


@pytest.mark.parametrize(
    "goal",
    [
        pytest.param("{figure: packed_bytes, threshold: 9500}", id="within the prediction's error"),
        pytest.param("{figure: metric, max_drop: 0}", id="a metric, which training decides"),
        pytest.param("{figure: f1, threshold: 1, higher_is_better: true}", id="another metric"),
        pytest.param("{figure: packed_bytes, max_ratio: 0.1, against: champion}", id="against the champion"),
        pytest.param("{figure: sparsity, threshold: 0.99}", id="a share of zeros"),
    ],
)
def test_what_training_may_still_bring_is_left_open(goal):
    assert missed(f"[{goal}]") == []


def test_every_goal_that_is_missed_is_told():
    goals = "[{figure: packed_bytes, threshold: 1}, {figure: metric, max_drop: 0}, {figure: zip_bytes, threshold: 1}]"
    assert [reason.split("'")[1] for reason in missed(goals)] == ["packed_bytes", "zip_bytes"]


def test_a_file_that_the_npu_does_not_run_misses_goals_on_it_and_says_why():
    (told,) = missed("[{figure: npu_latency_ms, threshold: 1}]", figures={}, npu_gap="Vela refuses it")
    assert told == "predicted it has no 'npu_latency_ms' (Vela refuses it); the goal is npu_latency_ms of at most 1 ms"


def test_nothing_is_said_of_what_cannot_be_made():
    assert missed("[{figure: packed_bytes, threshold: 1}]", figures={}, infeasible="too many clusters") == []


def test_a_leaf_that_is_only_converted_must_be_feasible_one_that_trains_may_yet_become_so():
    check_feasible([prediction(), prediction(leaf="pqat", infeasible="a pooling of two scales")], BRANCHES)
    with pytest.raises(CollaboptError, match="leaf 'pruned_ptq' cannot be made: a pooling of two scales") as refused:
        check_feasible([prediction(leaf="pruned_ptq", infeasible="a pooling of two scales")], BRANCHES)
    assert refused.value.where == "sparsity 0.5"
