"""Leaves that were not trained, in front of the gate."""

import json

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import digest_of, read_candidates
from collabopt.components.engine.gate.decision import decide
from collabopt.components.engine.gate.record import leaf_table
from collabopt.components.engine.gate.run import Gate, run_gate
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.prescreen.recipe import recipe_of
from collabopt.components.engine.prescreen.records import Comparison, Prediction, Prescreen
from collabopt.components.engine.records import SkippedRecord, Step, read_leaf_report, read_stage_record, write_record

SMALL = "goals: [{figure: packed_bytes, threshold: 700}]"
WHY = "predicted 'packed_bytes' is 900 B; accepted is at most 700 B"
ALSO = "'pruned', which it stands below, was not trained: its accuracy has fallen too far"


def predicted(policy=SMALL, not_trained=WHY, **figures):
    """A prescreen that has ruled `ptq` out under a policy."""
    figures = {"packed_bytes": 900.0, "npu_latency_ms": 3.0, **figures}
    ptq = Prediction(leaf="ptq", configuration={}, accelerator="ethos-u55-128", figures=figures)
    return Prescreen(
        model="m",
        data="d",
        dataset_digest="d1",
        grid={},
        baseline={"packed_bytes": 2000.0},
        policy=parse_policy(policy),
        predictions=[ptq],
        files=1,
        not_trained={"ptq": not_trained},
        versions={},
    )


@pytest.fixture
def skipped(make_baseline):
    def make(stage="ptq", technique="post_training_quantize", reason=WHY, above=()):
        baseline = make_baseline()
        step = Step(stage=stage, technique=technique, settings={"seed": 0}, skipped=reason, mlflow_run_id="")
        return SkippedRecord(**{**dict(baseline), "lineage": [*baseline.lineage, *above, step], "metrics": {}})

    return make


@pytest.fixture
def judge(make_baseline, make_report, skipped):
    """The decision over a trained `qat` and a `ptq` that was not trained."""

    def call(policy=SMALL, record=None, found=None, trained=True):
        reports = {"qat": make_report(0.9, stage="qat", packed_bytes=600)} if trained else {}
        untrained = {"ptq": record or skipped()}
        return decide(make_baseline(), reports, parse_policy(policy), untrained=untrained, predicted=found)

    return call


def reason(decision):
    return next(verdict.reason for verdict in decision.verdicts if verdict.leaf == "ptq")


def test_its_verdict_is_why_and_it_has_no_figures(judge):
    decision = judge()
    ptq, qat = decision.verdicts
    assert (ptq.leaf, ptq.trained, ptq.qualified, ptq.sha256) == ("ptq", False, False, "")
    assert ptq.reason == f"not trained: {WHY}"
    assert (ptq.metric, ptq.drop, ptq.figures, ptq.goals) == (None, None, {}, ())
    assert (ptq.pathway, ptq.techniques) == ("standard", ("import_model", "post_training_quantize"))
    assert qat.trained and decision.winner == "qat"
    assert "of 2 leaves, 1 of them not trained, it alone qualifies" in decision.outcome
    assert f"| - | - | - | - | not trained: {WHY} |" in leaf_table(decision)


@pytest.mark.parametrize(("policy", "failed"), [(SMALL, False), (f"{SMALL}\nwhen_none_qualifies: fail", True)])
def test_where_none_was_trained_none_qualifies(judge, policy, failed):
    decision = judge(policy, trained=False)
    assert decision.winner is None
    assert decision.failed == failed
    assert "none of 1 leaves qualifies, 1 of them not trained; nothing is shipped" in decision.outcome


def test_under_the_same_policy_the_reason_stays(judge):
    assert reason(judge(found=predicted())) == f"not trained: {WHY}"


def test_a_policy_that_rules_it_out_too_has_a_reason_of_its_own(judge):
    again = reason(judge("goals: [{figure: packed_bytes, threshold: 800}]", found=predicted()))
    assert again == "not trained: predicted 'packed_bytes' is 900 B; accepted is at most 800 B"


def test_a_policy_under_which_it_might_qualify_leaves_it_untrained_and_says_so(judge):
    decision = judge("goals: []", found=predicted())
    assert reason(decision) == (
        f"not trained: under another policy: {WHY}; under this one it might qualify: run the pipeline with it"
    )
    assert not decision.verdicts[0].qualified


def test_a_policy_for_another_npu_is_judged_without_the_npu(judge):
    other = "accelerator: ethos-u65-256\ngoals: [{figure: npu_latency_ms, threshold: 0.1}]"
    assert "under this one it might qualify" in reason(judge(other, found=predicted()))
    same = "goals: [{figure: npu_latency_ms, threshold: 0.1}]"
    assert reason(judge(same, found=predicted())).startswith("not trained: predicted 'npu_latency_ms' is 3 ms")


@pytest.mark.parametrize("found", [None, predicted()])
def test_a_reason_that_no_prediction_has_given_stays_under_any_policy(judge, skipped, found):
    assert reason(judge("goals: []", skipped(reason=ALSO), found)) == f"not trained: {ALSO}"


@pytest.fixture
def leaves(examples, make_leaf, skipped, tmp_path):
    """A trained `ptq`, and two leaves that were not trained, one of them below a stage that was not either."""
    pruned = Step(stage="pruned", technique="prune", settings={"target_sparsity": 0.5}, skipped=WHY)
    records = {
        "qat": skipped("qat", "quantize_aware_train"),
        "pqat": skipped("pqat", "sparsity_preserving_qat", ALSO, [pruned]),
    }
    for name, record in records.items():
        (tmp_path / name).mkdir()
        write_record(record, tmp_path / name)
    return {"ptq": make_leaf(examples[0], 0.88), **{name: str(tmp_path / name) for name in records}}


@pytest.fixture
def gate(client, baseline_directory, samples, tmp_path):
    def run(leaves, policy="goals: [{figure: metric, max_drop: 0.05}]", found=None):
        candidates = read_candidates(read_stage_record(baseline_directory), leaves)
        given = Gate(candidates, parse_policy(policy), lambda limit: samples, "m", str(tmp_path / "releases"), found)
        return run_gate(given, tmp_path / "output", {})

    return run


def shown(client):
    runs = client.search_runs(["1"], "tags.`collabopt.stage` LIKE '%'")
    return {run.info.run_name: run for run in runs}


def test_mlflow_shows_every_stage_that_was_not_trained_with_the_reason_and_no_figures(client, gate, leaves):
    gate(leaves)
    runs = shown(client)
    assert {"baseline", "ptq", "pruned", "qat", "pqat"} <= set(runs)
    whys = {name: run.data.tags.get("collabopt.skipped") for name, run in runs.items()}
    assert whys == {**dict.fromkeys(runs), "pruned": WHY, "qat": WHY, "pqat": ALSO}
    for name in ("pruned", "qat", "pqat"):
        assert runs[name].data.metrics == {}
        assert runs[name].info.status == "FINISHED"
        assert runs[name].data.tags["collabopt.cached_from"] == "unknown"
    parent = client.search_runs(["1"], "tags.`kfp.pipeline_run_id` = 'run-1'")[0]
    assert (parent.data.metrics["leaves"], parent.data.metrics["trained_leaves"]) == (3, 1)


def test_report_card_and_predictions_show_them(gate, leaves, tmp_path):
    report = read_leaf_report(leaves["ptq"])
    prediction = Prediction(
        leaf="ptq",
        configuration={},
        accelerator="ethos-u55-128",
        figures={"packed_bytes": report.deployed.packed_bytes * 1.01, "gzip_bytes": report.deployed.gzip_bytes * 1.0},
        recipe=recipe_of([("ptq", "post_training_quantize")], {}, {}).name,
    )
    decision = gate(leaves, found=predicted().model_copy(update={"predictions": [prediction]}))
    assert decision.winner == "ptq"
    page = (tmp_path / "output" / "report.html").read_text()
    assert page.count('<tr class="untrained">') == 2
    assert "not trained" in page and "its accuracy has fallen too far" in page
    assert "Predicted before training" in page and "+1.0 %" in page
    assert "qat (not trained, from baseline)" in page and "pruned (not trained, from baseline)" in page
    card = json.loads((tmp_path / "output" / "model_card.json").read_text())
    assert {row["leaf"]: row["trained"] for row in card["comparison"]} == {"ptq": True, "qat": False, "pqat": False}
    assert f"not trained: {WHY}"[:30] in (tmp_path / "output" / "model_card.md").read_text()
    kept = Prescreen.model_validate_json((tmp_path / "output" / "prescreen.json").read_text())
    compared = next(each for each in kept.comparisons if each.figure == "packed_bytes")
    assert isinstance(compared, Comparison)
    assert compared.error == pytest.approx(0.01)


def test_where_none_was_trained_the_gate_ends_well_with_a_report(gate, leaves, tmp_path):
    del leaves["ptq"]
    decision = gate(leaves)
    assert decision.winner is None and not decision.failed
    assert "Nothing ships" in (tmp_path / "output" / "report.html").read_text()
    assert not (tmp_path / "releases" / "m").exists()


def test_a_decision_over_a_leaf_that_was_trained_after_all_is_another_one(leaves, baseline_directory):
    baseline, policy = read_stage_record(baseline_directory), parse_policy("")
    all_of_them = digest_of(read_candidates(baseline, leaves), policy)
    assert all_of_them != digest_of(read_candidates(baseline, {"ptq": leaves["ptq"]}), policy)


def test_one_that_lies_under_the_name_of_another_is_refused(leaves, baseline_directory):
    with pytest.raises(CollaboptError, match="passed as leaf 'cqat' was made by stage 'qat'"):
        read_candidates(read_stage_record(baseline_directory), {"cqat": leaves["qat"]})
