import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabopt.components.engine.gate.decision import Decision, assess, decide
from collabopt.components.engine.gate.policy import Policy

MINIMIZE = ("tflite_bytes", "gzip_bytes", "zip_bytes")


def verdict_on(decision, name):
    return next(verdict for verdict in decision.verdicts if verdict.leaf == name)


# --- examples ---


def test_the_smallest_leaf_within_the_limits_wins(make_report, make_baseline):
    leaves = {
        "ptq": make_report(0.89, gzip_bytes=400),
        "qat": make_report(0.90, gzip_bytes=500, stage="qat"),
        "pqat": make_report(0.80, gzip_bytes=100, stage="pqat"),
    }
    decision = decide(make_baseline(0.9), leaves, Policy(max_drop=0.02))
    assert decision.winner == "ptq"
    assert [verdict.leaf for verdict in decision.verdicts] == ["pqat", "ptq", "qat"]
    refused = verdict_on(decision, "pqat")
    assert not refused.qualified
    assert refused.reason == "'accuracy' is 0.8000, 0.1000 worse than the baseline; accepted are 0.02"
    assert (refused.pathway, refused.techniques) == (
        "collaborative",
        ("import_model", "prune", "sparsity_preserving_qat"),
    )
    assert "'ptq' is shipped" in decision.outcome and "400" in decision.outcome


def test_a_drop_of_exactly_the_limit_qualifies(make_report, make_baseline):
    """0.91 - 0.89 is more than 0.02 in floating point."""
    baseline = make_baseline(0.91)
    assert decide(baseline, {"ptq": make_report(0.89, baseline=baseline)}, Policy(max_drop=0.02)).winner == "ptq"
    assert decide(baseline, {"ptq": make_report(0.8899, baseline=baseline)}, Policy(max_drop=0.02)).winner is None


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"metric": 0.5}, "another baseline"),
        ({"lineage": "other.keras"}, "another baseline"),
        ({"task": "package:OTHER"}, "its task is 'package:OTHER'"),
    ],
)
def test_a_leaf_of_another_baseline_or_task_is_refused(make_report, make_baseline, other, reason):
    report = make_report()
    if "metric" in other:
        report = report.model_copy(update={"metric": report.metric.model_copy(update={"baseline": other["metric"]})})
    if "lineage" in other:
        root = report.lineage[0].model_copy(update={"settings": {"source": other["lineage"]}})
        report = report.model_copy(update={"lineage": [root, *report.lineage[1:]]})
    if "task" in other:
        report = report.model_copy(update={"task": other["task"]})
    verdict = verdict_on(decide(make_baseline(), {"ptq": report}, Policy()), "ptq")
    assert not verdict.qualified
    assert reason in verdict.reason


def test_a_metric_that_should_be_low_drops_when_it_rises(make_report, make_baseline):
    baseline = make_baseline(1.0, metric="mae", higher_is_better=False)
    leaves = {
        "better": make_report(0.9, baseline=baseline, gzip_bytes=300),
        "worse": make_report(1.2, baseline=baseline, gzip_bytes=200),
    }
    decision = decide(baseline, leaves, Policy(max_drop=0.1))
    assert decision.winner == "better"
    assert verdict_on(decision, "better").drop == pytest.approx(-0.1)


def test_size_limits_refuse_with_the_figures(make_report, make_baseline):
    leaves = {
        "ptq": make_report(tflite_bytes=1001, gzip_bytes=501),
        "qat": make_report(tflite_bytes=1000, gzip_bytes=500),
    }
    decision = decide(make_baseline(), leaves, Policy(max_tflite_bytes=1000, max_gzip_bytes=500))
    assert decision.winner == "qat"
    assert verdict_on(decision, "ptq").reason == (
        "the .tflite file has 1,001 bytes; accepted are 1,000; the gzipped file has 501 bytes; accepted are 500"
    )


def test_a_broken_leaf_never_wins_however_small_and_accurate(make_report, make_baseline):
    leaves = {
        "pqat": make_report(1.0, stage="pqat", gzip_bytes=1, tflite_bytes=1, zip_bytes=1, broken=["conv_3"]),
        "ptq": make_report(0.89, gzip_bytes=10**9),
    }
    decision = decide(make_baseline(0.9), leaves, Policy(max_drop=0.02))
    assert decision.winner == "ptq"
    del leaves["ptq"]
    assert decide(make_baseline(0.9), leaves, Policy(max_drop=0.02)).winner is None


def test_the_verdict_on_a_broken_leaf_names_its_layers(make_report, make_baseline):
    decision = decide(make_baseline(), {"pqat": make_report(broken=["conv_3", "dense"])}, Policy())
    assert verdict_on(decision, "pqat").reason == (
        "broken: the file does not keep what its ancestors won "
        "('conv_3': 12 of 34 zeros are lost; 'dense': 12 of 34 zeros are lost)"
    )


def test_a_verdict_does_not_list_a_hundred_broken_layers(make_report, make_baseline):
    broken = [f"conv_{number}" for number in range(100)]
    reason = verdict_on(decide(make_baseline(), {"pqat": make_report(broken=broken)}, Policy()), "pqat").reason
    assert "'conv_2'" in reason and "'conv_3'" not in reason
    assert reason.endswith("; and 97 more)")


def test_equal_sizes_are_decided_by_drop_then_by_name(make_report, make_baseline):
    leaves = {"c": make_report(0.9), "b": make_report(0.91), "a": make_report(0.9)}
    assert decide(make_baseline(), leaves, Policy()).winner == "b"
    del leaves["b"]
    assert decide(make_baseline(), leaves, Policy()).winner == "a"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
def test_a_leaf_without_a_number_never_qualifies(make_report, make_baseline, value):
    decision = decide(make_baseline(), {"ptq": make_report(value)}, Policy(max_drop=1e300))
    assert decision.winner is None
    assert verdict_on(decision, "ptq").metric is None
    assert "'accuracy'" in verdict_on(decision, "ptq").reason


def test_nothing_qualifies_against_a_baseline_without_a_number(make_report, make_baseline):
    baseline = make_baseline(math.nan)
    assert decide(baseline, {"ptq": make_report(0.9, baseline=baseline)}, Policy(max_drop=1e300)).winner is None


def test_leaves_measured_otherwise_are_not_compared(make_report, make_baseline):
    report = make_report(0.9)
    other_data = report.model_copy(update={"dataset_digest": "d2"})
    other_metric = report.model_copy(update={"metric": report.metric.model_copy(update={"name": "recall"})})
    decision = decide(make_baseline(), {"a": other_data, "b": other_metric}, Policy())
    assert decision.winner is None
    assert "another dataset" in verdict_on(decision, "a").reason
    assert "'recall'" in verdict_on(decision, "b").reason


@pytest.mark.parametrize("count", [0, 1])
def test_none_qualified_is_an_outcome(make_report, make_baseline, count):
    decision = decide(make_baseline(), {"ptq": make_report(0.5)} if count else {}, Policy())
    assert (decision.winner, decision.winner_sha256) == (None, None)
    assert decision.outcome == f"none of {count} leaves qualifies; nothing is shipped"


def test_assess_says_whether_any_leaf_qualifies(make_report, make_baseline):
    leaves = {"ptq": make_report(0.5), "qat": make_report(0.9)}
    assert assess(leaves, make_baseline(), Policy())
    del leaves["qat"]
    assert not assess(leaves, make_baseline(), Policy())


def test_a_decision_survives_its_file(make_report, make_baseline):
    leaves = {"ptq": make_report(0.9, sha256="cafe"), "qat": make_report(math.nan)}
    decision = decide(make_baseline(), leaves, Policy())
    text = decision.model_dump_json()
    assert Decision.model_validate_json(text) == decision
    plain = json.loads(text, parse_constant=pytest.fail)
    assert plain["schema_version"] == 1
    assert (plain["winner"], plain["winner_sha256"]) == ("ptq", "cafe")
    assert plain["policy"]["max_drop"] == 0.02
    assert plain["baseline"]["value"] == 0.9


# --- properties ---

sizes = st.integers(1, 6)
values = st.sampled_from([0.0, 0.5, 0.875, 0.9, 1.0, math.nan, math.inf]) | st.floats(0, 1)
broken = st.just([]) | st.lists(st.sampled_from(["conv", "dense", "head"]), unique=True)
figures = st.fixed_dictionaries(
    {"value": values, "tflite_bytes": sizes, "gzip_bytes": sizes, "zip_bytes": sizes, "broken": broken}
)
families = st.dictionaries(st.sampled_from("abcdefgh"), figures, max_size=8)
policies = st.builds(
    Policy,
    max_drop=st.sampled_from([0.0, 0.02, 0.5]) | st.floats(0, 1),
    max_tflite_bytes=st.none() | sizes,
    max_gzip_bytes=st.none() | sizes,
    minimize=st.sampled_from(MINIMIZE),
)


@given(families, policies, st.randoms())
def test_the_order_of_the_leaves_does_not_matter(make_report, make_baseline, family, policy, random):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    shuffled = list(leaves.items())
    random.shuffle(shuffled)
    assert decide(make_baseline(), leaves, policy) == decide(make_baseline(), dict(shuffled), policy)


@given(families, policies)
def test_the_winner_is_qualified_and_no_qualified_leaf_is_smaller(make_report, make_baseline, family, policy):
    decision = decide(make_baseline(), {name: make_report(**leaf) for name, leaf in family.items()}, policy)
    assert {verdict.leaf for verdict in decision.verdicts} == set(family)
    expected = {
        name
        for name, leaf in family.items()
        if not leaf["broken"]
        and math.isfinite(leaf["value"])
        and 0.9 - leaf["value"] <= policy.max_drop + 1e-9
        and leaf["tflite_bytes"] <= (policy.max_tflite_bytes or math.inf)
        and leaf["gzip_bytes"] <= (policy.max_gzip_bytes or math.inf)
    }
    assert {verdict.leaf for verdict in decision.verdicts if verdict.qualified} == expected
    if not expected:
        assert decision.winner is None
    else:
        least = min(family[name][policy.minimize] for name in expected)
        smallest = [name for name in expected if family[name][policy.minimize] == least]
        best = max(family[name]["value"] for name in smallest)
        assert decision.winner == min(name for name in smallest if 0.9 - family[name]["value"] == 0.9 - best)


@given(families, policies)
def test_a_leaf_that_does_not_qualify_changes_nothing_for_the_others(make_report, make_baseline, family, policy):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    with_bad = {**leaves, "bad": make_report(math.nan, gzip_bytes=1, tflite_bytes=1, zip_bytes=1)}
    assert decide(make_baseline(), with_bad, policy).winner == decide(make_baseline(), leaves, policy).winner


@given(families, policies)
def test_a_broken_leaf_changes_nothing_for_the_others(make_report, make_baseline, family, policy):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    with_broken = {**leaves, "bad": make_report(1.0, gzip_bytes=0, tflite_bytes=0, zip_bytes=0, broken=["conv"])}
    assert decide(make_baseline(), with_broken, policy).winner == decide(make_baseline(), leaves, policy).winner


@given(families, policies)
def test_every_refusal_has_a_reason_with_a_figure(make_report, make_baseline, family, policy):
    decision = decide(make_baseline(), {name: make_report(**leaf) for name, leaf in family.items()}, policy)
    for verdict in decision.verdicts:
        assert any(character.isdigit() for character in verdict.reason) or "nan" in verdict.reason


@given(families, policies)
def test_every_refusal_of_a_broken_leaf_names_all_its_layers(make_report, make_baseline, family, policy):
    decision = decide(make_baseline(), {name: make_report(**leaf) for name, leaf in family.items()}, policy)
    for verdict in decision.verdicts:
        for layer in family[verdict.leaf]["broken"]:
            assert not verdict.qualified
            assert f"'{layer}'" in verdict.reason
