"""What drives a search: the policy's figures, with the metric of the validation split."""

import pytest

from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.prescreen.records import Prediction
from collabopt.components.engine.records import Contract, DeployedModel, LeafReport, MetricOfRecord, StageRecord, Step
from collabopt.components.engine.search.objectives import Answer, answer_of, best_of, objectives_of, why_hopeless
from collabopt.components.engine.search.outcome import answer_of_trial, told
from collabopt.components.engine.training.task import DEFAULT_TASK

POLICY = parse_policy(
    "goals: [{figure: metric, max_drop: 0.02}, {figure: gzip_bytes, threshold: 900}]\npriority: [packed_bytes, metric]"
)
SHARED = {
    "task": DEFAULT_TASK,
    "dataset_digest": "d",
    "metric": MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
}
BASELINE = StageRecord(
    lineage=[Step(stage="baseline", technique="import_model")],
    metrics={"accuracy": 0.9, "validation_accuracy": 0.8},
    **SHARED,
)


def leaf(test, validation, size=500, gzip=800, trial=0):
    ptq = Step(stage="ptq", technique="post_training_quantize", trial=trial)
    deployed = DeployedModel(
        sha256="0",
        tflite_bytes=1000,
        gzip_bytes=gzip,
        zip_bytes=gzip,
        packed_bytes=size,
        input_dtype="int8",
        output_dtype="int8",
        operators={},
    )
    metrics = {"accuracy": test, "validation_accuracy": validation}
    lineage = [*BASELINE.lineage, ptq]
    return LeafReport(lineage=lineage, metrics=metrics, deployed=deployed, contract=Contract(), **SHARED)


def interior(validation):
    lineage = [*BASELINE.lineage, Step(stage="pruned", technique="prune", trial=4)]
    return StageRecord(lineage=lineage, metrics={"accuracy": 0.1, "validation_accuracy": validation}, **SHARED)


def test_objectives_are_the_metric_and_what_the_policy_names_each_once():
    found = [(each.name, each.higher_is_better) for each in objectives_of(POLICY, BASELINE)]
    assert found == [("accuracy", True), ("packed_bytes", False), ("gzip_bytes", False)]


def test_what_takes_the_champion_is_left_to_the_gate():
    goals = "{figure: update_bytes, threshold: 1}, {figure: packed_bytes, max_ratio: 1, against: champion}"
    policy = parse_policy(f"goals: [{goals}]\npriority: [update_bytes, metric]")
    assert {each.name for each in objectives_of(policy, BASELINE)} == {"accuracy", "packed_bytes"}
    assert answer_of("ptq@0", leaf(0.9, 0.8), BASELINE, policy).violations == ()


def test_a_leaf_is_answered_by_validation_and_not_by_test():
    good_on_test = answer_of("ptq@0", leaf(test=0.99, validation=0.7), BASELINE, POLICY)
    assert good_on_test.figures["accuracy"] == pytest.approx(0.8)
    assert not good_on_test.qualifies and good_on_test.violations[1] == 0
    bad_on_test = answer_of("ptq@0", leaf(test=0.1, validation=0.81), BASELINE, POLICY)
    assert bad_on_test.figures["accuracy"] == pytest.approx(0.91) and bad_on_test.qualifies


def test_a_trial_is_stood_for_by_the_leaf_that_the_gate_would_take():
    answers = [
        Answer("small", {"accuracy": 0.89, "packed_bytes": 400}, (0.0, 0.0)),
        Answer("large", {"accuracy": 0.95, "packed_bytes": 500}, (0.0, 0.0)),
        Answer("smallest", {"accuracy": 0.5, "packed_bytes": 100}, (0.4, 0.0)),
        Answer("broken", {"accuracy": 0.9, "packed_bytes": 90}, (0.0, 0.0), holds=False),
    ]
    assert best_of(answers, POLICY, BASELINE).leaf == "small"
    assert best_of(answers[2:], POLICY, BASELINE).leaf == "smallest"


@pytest.mark.parametrize(("validation", "hopeless"), [(0.80, False), (0.70, False), (0.66, True)])
def test_below_a_model_that_has_lost_too_much_nothing_is_trained(validation, hopeless):
    reason = why_hopeless(interior(validation), BASELINE, POLICY)
    assert bool(reason) is hopeless
    if hopeless:
        assert "pruned@4" in reason and f"{validation + 0.1:.4f}" in reason


def test_without_a_goal_on_the_metric_everything_is_trained():
    assert why_hopeless(interior(0.0), BASELINE, parse_policy("goals: [{figure: gzip_bytes, threshold: 1}]")) == ""


def test_a_trial_that_was_not_trained_tells_of_the_leaf_that_comes_closest_and_that_it_is_infeasible():
    foreseen = [
        Prediction(leaf=leaf, configuration={}, accelerator="a", figures={"packed_bytes": 70, "gzip_bytes": gzip})
        for leaf, gzip in (("clustered_ptq@3", 90_000), ("pcqat@3", 1350), ("ptq@3", 9000))
    ]
    before = [Answer("ptq@0", {"accuracy": 0.7, "packed_bytes": 1, "gzip_bytes": 1}, (0.0, 0.0))]
    answer = answer_of_trial({}, foreseen, BASELINE, POLICY)
    said = told(answer, objectives_of(POLICY, BASELINE), before)
    assert answer.leaf == "pcqat@3" and list(said.values) == [0.7, 70, 1350]
    assert list(said.violations) == pytest.approx([1.0, 0.5, 1.0])  # the metric is not known, and it is not trained


def test_a_trained_trial_tells_how_far_it_misses_each_goal():
    trained = {"ptq@1": leaf(test=0.9, validation=0.8, gzip=1800)}
    said = told(answer_of_trial(trained, [], BASELINE, POLICY), objectives_of(POLICY, BASELINE), [])
    assert list(said.violations) == pytest.approx([0.0, 1.0, 0.0])
    assert list(said.values) == pytest.approx([0.9, 500, 1800])
