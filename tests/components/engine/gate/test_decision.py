import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.decision import Champion, Decision, decide
from collabopt.components.engine.policy.policy import Goal, Policy, Preference, example_policies, parse_policy

NO_LIMIT = Policy(goals=())


def drop(limit):
    return Policy(goals=(Goal(figure="metric", max_drop=limit),))


def verdict_on(decision, name):
    return next(verdict for verdict in decision.verdicts if verdict.leaf == name)


# --- examples ---


def test_the_smallest_leaf_within_the_limits_wins(make_report, make_baseline):
    leaves = {
        "ptq": make_report(0.89, gzip_bytes=400),
        "qat": make_report(0.90, gzip_bytes=500, stage="qat"),
        "pqat": make_report(0.80, gzip_bytes=100, stage="pqat"),
    }
    decision = decide(make_baseline(0.9), leaves, drop(0.02))
    assert decision.winner == "ptq"
    assert [verdict.leaf for verdict in decision.verdicts] == ["pqat", "ptq", "qat"]
    refused = verdict_on(decision, "pqat")
    assert not refused.qualified
    assert refused.reason == "'accuracy' is 0.8000, 0.1000 worse than the baseline; accepted is at most 0.02"
    assert (refused.pathway, refused.techniques) == (
        "collaborative",
        ("import_model", "prune", "sparsity_preserving_qat"),
    )
    assert decision.outcome == (
        "'ptq' is shipped: of 2 qualified leaves (3 in all) it ranks first by packed_bytes 400 B "
        "(within 1% counts as equal), then accuracy 0.8900; accuracy is 0.0100 worse than the baseline"
    )
    assert (
        verdict_on(decision, "qat").reason
        == "every goal is met; 'ptq' is better in packed_bytes, 400 B against 500 B, by more than 1%"
    )


def test_by_default_a_few_bytes_do_not_outweigh_the_metric(make_report, make_baseline):
    leaves = {"ptq": make_report(0.89, gzip_bytes=10_000), "qat": make_report(0.90, gzip_bytes=10_100, stage="qat")}
    assert decide(make_baseline(0.9), leaves, Policy()).winner == "qat"
    leaves["qat"] = make_report(0.90, gzip_bytes=10_101, stage="qat")
    assert decide(make_baseline(0.9), leaves, Policy()).winner == "ptq"


@pytest.mark.parametrize(
    ("worse", "said"),
    [
        ({}, "'ptq' is shipped: the only leaf, with packed_bytes 500 B, "),
        ({"qat": 0.5}, "'ptq' is shipped: of 2 leaves it alone qualifies, with packed_bytes 500 B, "),
    ],
)
def test_the_outcome_where_one_leaf_qualifies(make_report, make_baseline, worse, said):
    leaves = {"ptq": make_report(0.9), **{name: make_report(value, stage=name) for name, value in worse.items()}}
    assert (
        decide(make_baseline(0.9), leaves, Policy()).outcome
        == said + "then accuracy 0.9000; accuracy is as good as the baseline"
    )


def test_a_drop_of_exactly_the_limit_qualifies(make_report, make_baseline):
    """0.91 - 0.89 is more than 0.02 in floating point."""
    baseline = make_baseline(0.91)
    assert decide(baseline, {"ptq": make_report(0.89, baseline=baseline)}, drop(0.02)).winner == "ptq"
    assert decide(baseline, {"ptq": make_report(0.8899, baseline=baseline)}, drop(0.02)).winner is None


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
    decision = decide(baseline, leaves, drop(0.1))
    assert decision.winner == "better"
    assert verdict_on(decision, "better").drop == pytest.approx(-0.1)


def test_size_limits_refuse_with_the_figures(make_report, make_baseline):
    leaves = {
        "ptq": make_report(tflite_bytes=1001, gzip_bytes=501),
        "qat": make_report(tflite_bytes=1000, gzip_bytes=500),
    }
    limits = (Goal(figure="tflite_bytes", threshold=1000), Goal(figure="gzip_bytes", threshold=500))
    decision = decide(make_baseline(), leaves, Policy(goals=limits))
    assert decision.winner == "qat"
    assert verdict_on(decision, "ptq").reason == (
        "'tflite_bytes' is 1,001 B; accepted is at most 1,000 B; 'gzip_bytes' is 501 B; accepted is at most 500 B"
    )
    assert [goal.met for goal in verdict_on(decision, "ptq").goals] == [False, False]
    assert [goal.goal for goal in verdict_on(decision, "qat").goals] == [
        "tflite_bytes of at most 1,000 B",
        "gzip_bytes of at most 500 B",
    ]


def test_a_broken_leaf_never_wins_however_small_and_accurate(make_report, make_baseline):
    leaves = {
        "pqat": make_report(1.0, stage="pqat", gzip_bytes=1, tflite_bytes=1, zip_bytes=1, broken=["conv_3"]),
        "ptq": make_report(0.89, gzip_bytes=10**9),
    }
    decision = decide(make_baseline(0.9), leaves, drop(0.02))
    assert decision.winner == "ptq"
    del leaves["ptq"]
    assert decide(make_baseline(0.9), leaves, drop(0.02)).winner is None


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


def test_equal_sizes_are_decided_by_metric_then_techniques_then_name(make_report, make_baseline):
    leaves = {
        "b": make_report(0.91),
        "a": make_report(0.9, stage="pqat"),
        "d": make_report(0.9),
        "c": make_report(0.9),
    }
    decision = decide(make_baseline(), leaves, Policy())
    assert decision.winner == "b"
    assert [(each.leaf, each.on_front, each.dominated_by) for each in decision.verdicts] == [
        ("a", False, "b"),
        ("b", True, None),
        ("c", False, "b"),
        ("d", False, "b"),
    ]
    del leaves["b"]
    decision = decide(make_baseline(), leaves, Policy())
    assert decision.winner == "c"
    assert all(each.on_front for each in decision.verdicts)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, None])
@pytest.mark.parametrize("policy", [drop(1e300), NO_LIMIT])
def test_a_leaf_without_a_number_never_qualifies(make_report, make_baseline, value, policy):
    decision = decide(make_baseline(), {"ptq": make_report(value)}, policy)
    assert decision.winner is None
    assert verdict_on(decision, "ptq").metric is None
    assert "'accuracy'" in verdict_on(decision, "ptq").reason


def test_nothing_qualifies_against_a_baseline_without_a_number(make_report, make_baseline):
    baseline = make_baseline(math.nan)
    for policy in (drop(1e300), NO_LIMIT):
        assert decide(baseline, {"ptq": make_report(0.9, baseline=baseline)}, policy).winner is None


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


def test_there_is_a_winner_where_any_leaf_qualifies(make_report, make_baseline):
    leaves = {"ptq": make_report(0.5), "qat": make_report(0.9)}
    assert decide(make_baseline(), leaves, Policy()).winner is not None
    del leaves["qat"]
    assert decide(make_baseline(), leaves, Policy()).winner is None


def test_a_decision_survives_its_file(make_report, make_baseline):
    leaves = {"ptq": make_report(0.9, sha256="cafe"), "qat": make_report(math.nan)}
    decision = decide(make_baseline(), leaves, Policy())
    text = decision.model_dump_json()
    assert Decision.model_validate_json(text) == decision
    plain = json.loads(text, parse_constant=pytest.fail)
    assert plain["schema_version"] == 2
    assert (plain["winner"], plain["winner_sha256"]) == ("ptq", "cafe")
    assert plain["policy"]["goals"][0]["max_drop"] == 0.02
    assert plain["baseline"]["value"] == 0.9
    ptq, qat = plain["verdicts"]
    assert ptq["figures"]["packed_bytes"] == 500 and "accuracy" not in qat["figures"]
    assert (qat["goals"][0]["met"], qat["goals"][0]["value"]) == (False, None)


# --- the champion ---

BETTER = Policy(goals=(Goal(figure="packed_bytes", min_improvement="5%", against="champion"),))
OLD = Champion(sha256="old", leaf="ptq", figures={"packed_bytes": 1000, "accuracy": 0.9, "npu_latency_ms": 0.1})


def test_a_leaf_must_beat_the_champion_where_the_policy_wants_it(make_report, make_baseline):
    leaves = {"ptq": make_report(gzip_bytes=951), "qat": make_report(gzip_bytes=950, stage="qat")}
    decision = decide(make_baseline(), leaves, BETTER, OLD)
    assert (decision.winner, decision.champion) == ("qat", OLD)
    assert verdict_on(decision, "ptq").reason == (
        "'packed_bytes' is 951 B, 49 B better than the champion; required is at least 5%"
    )
    assert Decision.model_validate_json(decision.model_dump_json()) == decision
    del leaves["qat"]
    decision = decide(make_baseline(), leaves, BETTER, OLD)
    assert decision.winner is None
    assert decision.outcome == "none of 1 leaves qualifies; nothing is shipped; 'ptq' stays the champion"


def test_goals_against_a_champion_are_met_where_there_is_none(make_report, make_baseline):
    leaves = {"ptq": make_report(gzip_bytes=10**9)}
    decision = decide(make_baseline(), leaves, BETTER)
    assert decision.winner == "ptq"
    assert "there is no champion yet" in verdict_on(decision, "ptq").goals[0].reason
    assert decide(make_baseline(), leaves, BETTER).winner is not None


def test_the_same_file_again_stays_the_champion(make_report, make_baseline):
    decision = decide(make_baseline(), {"ptq": make_report(sha256="old")}, Policy(), OLD)
    assert decision.winner == "ptq"
    assert decision.outcome.startswith("'ptq' stays the champion: ")


def test_a_champion_measured_otherwise_is_not_compared_with(make_report, make_baseline):
    on_metric = Policy(goals=(Goal(figure="metric", max_drop=0.1, against="champion"),))
    on_npu = Policy(goals=(Goal(figure="npu_latency_ms", max_ratio=9, against="champion"),))
    leaves = {"ptq": make_report(npu={"latency_ms": 0.05})}
    for policy, measured in ((on_metric, {"dataset_digest": "d{}"}), (on_npu, {"accelerator": "ethos-u55-{}"})):
        known, other = ({name: text.format(number) for name, text in measured.items()} for number in ("1", "2"))
        if "accelerator" in known:
            known = {"accelerator": "ethos-u55-128"}
        assert decide(make_baseline(), leaves, policy, OLD.model_copy(update=known)).winner == "ptq"
        refused = decide(make_baseline(), leaves, policy, OLD.model_copy(update=other))
        assert refused.winner is None
        assert "the champion has no" in verdict_on(refused, "ptq").reason
    # Sizes do not depend on the data.
    elsewhere = OLD.model_copy(update={"dataset_digest": "d2"})
    assert decide(make_baseline(), {"ptq": make_report(gzip_bytes=5)}, BETTER, elsewhere).winner == "ptq"


def test_what_was_rolled_back_is_not_shipped_again(make_report, make_baseline):
    leaves = {"ptq": make_report(sha256="bad", gzip_bytes=1), "qat": make_report(sha256="good", stage="qat")}
    decision = decide(make_baseline(), leaves, Policy(), withdrawn={"bad"})
    assert decision.winner == "qat"
    assert verdict_on(decision, "ptq").reason == "it was rolled back: a file of digest bad is withdrawn"
    assert all(goal.met for goal in verdict_on(decision, "ptq").goals)


@pytest.mark.parametrize(("then", "failed"), [("keep", False), ("fail", True)])
def test_whether_the_run_fails_is_the_policys_choice(make_report, make_baseline, then, failed):
    policy = Policy(when_none_qualifies=then)
    refused = decide(make_baseline(), {"ptq": make_report(0.5)}, policy)
    assert refused.failed is failed
    assert ("fail" in refused.outcome) is failed
    assert not decide(make_baseline(), {"ptq": make_report(0.9)}, policy).failed


# --- the NPU ---


@pytest.fixture
def npu_leaves(make_report):
    """The raw file is smallest in `ptq`, the download in `qat`, and the NPU is fastest on `pqat`."""
    return {
        "ptq": make_report(0.90, tflite_bytes=54_000, gzip_bytes=46_016, npu={"latency_ms": 0.111, "flash_bytes": 45}),
        "qat": make_report(
            0.90, stage="qat", tflite_bytes=54_760, gzip_bytes=10_199, npu={"latency_ms": 0.0735, "flash_bytes": 26}
        ),
        "pqat": make_report(
            0.89, stage="pqat", tflite_bytes=54_760, gzip_bytes=17_314, npu={"latency_ms": 0.0385, "flash_bytes": 9}
        ),
    }


def test_other_targets_get_other_leaves(npu_leaves, make_baseline):
    raw = Policy(priority=(Preference(figure="tflite_bytes"), Preference(figure="metric")))
    assert decide(make_baseline(), npu_leaves, raw).winner == "ptq"
    assert decide(make_baseline(), npu_leaves, Policy()).winner == "qat"
    decision = decide(make_baseline(), npu_leaves, parse_policy(example_policies()["npu"]))
    assert decision.winner == "pqat"
    assert verdict_on(decision, "pqat").figures["npu_latency_ms"] == 0.0385
    assert verdict_on(decision, "pqat").accelerator == "ethos-u55-128"


def test_figures_for_another_npu_than_the_policys_do_not_count(npu_leaves, make_baseline):
    policy = parse_policy("""
accelerator: ethos-u85-256
goals: [{figure: npu_latency_ms, threshold: 1}]
""")
    decision = decide(make_baseline(), npu_leaves, policy)
    assert decision.winner is None
    assert verdict_on(decision, "ptq").reason == (
        "it has no 'npu_latency_ms' (the leaf was measured for ethos-u55-128, the policy wants ethos-u85-256); "
        "the goal is npu_latency_ms of at most 1 ms"
    )
    assert not any(name.startswith("npu_") for name in verdict_on(decision, "ptq").figures)


def test_a_leaf_that_the_npu_cannot_take_meets_no_goal_on_it(make_report, make_baseline):
    policy = parse_policy("goals: [{figure: npu_latency_ms, threshold: 1}]")
    unsupported = make_report(npu={"supported": False, "reason": "all operators are float"})
    decision = decide(make_baseline(), {"a": unsupported, "b": make_report()}, policy)
    assert decision.winner is None
    assert "(all operators are float)" in verdict_on(decision, "a").reason
    assert "(no footprint was measured)" in verdict_on(decision, "b").reason


def test_estimates_for_several_npus_are_not_ranked(npu_leaves, make_report, make_baseline):
    leaves = {**npu_leaves, "cqat": make_report(npu={"latency_ms": 0.001, "accelerator": "ethos-u85-256"})}
    policy = Policy(priority=(Preference(figure="npu_latency_ms"),))
    with pytest.raises(CollaboptError, match=r"several: ethos-u55-128 \(.*\), ethos-u85-256 \("):
        decide(make_baseline(), leaves, policy)
    named = policy.model_copy(update={"accelerator": "ethos-u55-128"})
    assert decide(make_baseline(), leaves, named).winner == "pqat"
    assert decide(make_baseline(), leaves, Policy()).winner == "cqat"


def test_a_stage_that_logs_an_npu_figure_as_a_metric_does_not_make_it_one(make_report, make_baseline):
    report = make_report(metrics={"npu_latency_ms": 0.1, "recall": 0.8})
    figures = verdict_on(decide(make_baseline(), {"ptq": report}, Policy()), "ptq").figures
    assert figures["recall"] == 0.8 and "npu_latency_ms" not in figures


# --- properties ---

sizes = st.integers(1, 6)
# As coarse as metrics are: what is closer to a limit than the tolerance is tested in test_goals.py.
shares = st.integers(0, 1000).map(lambda thousandths: thousandths / 1000)
values = st.sampled_from([0.875, 0.88, 0.9, math.nan, math.inf, -math.inf]) | shares
broken = st.just([]) | st.lists(st.sampled_from(["conv", "dense", "head"]), unique=True)
latencies = st.none() | st.sampled_from([0.0, 0.5, 1.0, math.nan, math.inf])
figures = st.fixed_dictionaries(
    {
        "value": values,
        "tflite_bytes": sizes,
        "gzip_bytes": sizes,
        "npu": latencies.map(lambda value: None if value is None else {"latency_ms": value}),
        "broken": broken,
        "sha256": st.sampled_from(["a1", "b2", "c3"]),
        "stage": st.sampled_from(["ptq", "pqat"]),
    }
)
families = st.dictionaries(st.sampled_from("abcdefgh"), figures, max_size=6)
goals = st.one_of(
    st.builds(
        Goal,
        figure=st.just("metric"),
        max_drop=st.sampled_from([0.0, 0.02, 0.5, "2%"]),
        against=st.sampled_from(["baseline", "champion"]),
    ),
    st.builds(Goal, figure=st.sampled_from(["tflite_bytes", "packed_bytes"]), threshold=sizes),
    st.builds(Goal, figure=st.just("npu_latency_ms"), max_ratio=st.just(1.0), against=st.just("champion")),
    st.builds(
        Goal,
        figure=st.just("packed_bytes"),
        min_improvement=st.sampled_from(["20%", 1.0, 0.0]),
        against=st.just("champion"),
    ),
)
preferences = st.builds(
    Preference,
    figure=st.sampled_from(["metric", "packed_bytes", "tflite_bytes", "npu_latency_ms"]),
    within=st.sampled_from([0.0, "2%", "50%"]),
)
policies = st.builds(
    Policy,
    goals=st.lists(goals, max_size=3).map(tuple),
    priority=st.lists(preferences, min_size=1, max_size=3, unique_by=lambda each: each.figure).map(tuple),
)
champions = st.none() | st.builds(
    Champion,
    sha256=st.sampled_from(["a1", "old"]),
    leaf=st.just("old"),
    figures=st.fixed_dictionaries({"accuracy": shares, "packed_bytes": sizes}),
)
withdrawals = st.sets(st.sampled_from(["a1", "b2"]))


@settings(deadline=None)
@given(families, policies, champions, withdrawals, st.randoms())
def test_the_order_of_the_leaves_does_not_matter(
    make_report, make_baseline, family, policy, champion, withdrawn, random
):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    shuffled = list(leaves.items())
    random.shuffle(shuffled)
    one = decide(make_baseline(), leaves, policy, champion, withdrawn)
    assert one == decide(make_baseline(), dict(shuffled), policy, champion, sorted(withdrawn))
    assert Decision.model_validate_json(one.model_dump_json()) == one


def loss(goal, leaf, champion):
    """How far a leaf misses a goal, by the words of the policy alone; negative where it keeps it with room to spare."""
    latency = (leaf["npu"] or {}).get("latency_ms", math.nan)
    own = {
        "metric": leaf["value"],
        "packed_bytes": leaf["gzip_bytes"],
        "tflite_bytes": leaf["tflite_bytes"],
        "npu_latency_ms": latency,
    }[goal.figure]
    if not math.isfinite(own):
        return math.inf
    if goal.threshold is not None:
        return own - goal.threshold
    if goal.against == "champion" and champion is None:
        return -math.inf
    reference = 0.9
    if goal.against == "champion":
        reference = champion.figures.get("accuracy" if goal.figure == "metric" else goal.figure)
    if reference is None:
        return math.inf
    if goal.max_drop is not None:
        return (reference - own) - (0.02 * reference if goal.max_drop == "2%" else goal.max_drop)
    return own - (reference - (0.2 * reference if goal.min_improvement == "20%" else goal.min_improvement))


@settings(deadline=None)
@given(families, policies, champions, withdrawals)
def test_exactly_what_keeps_contract_and_goals_qualifies(
    make_report, make_baseline, family, policy, champion, withdrawn
):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    decision = decide(make_baseline(), leaves, policy, champion, withdrawn)
    assert {verdict.leaf for verdict in decision.verdicts} == set(family)
    expected = {
        name
        for name, leaf in family.items()
        if not leaf["broken"]
        and leaf["sha256"] not in withdrawn
        and math.isfinite(leaf["value"])
        and all(loss(goal, leaf, champion) <= 1e-8 for goal in policy.goals)
    }
    assert {verdict.leaf for verdict in decision.verdicts if verdict.qualified} == expected
    assert (decision.winner is None) == (not expected)
    if expected:
        winner = verdict_on(decision, decision.winner)
        assert winner.leaf in expected and winner.on_front and winner.dominated_by is None
        assert decision.winner_sha256 == family[winner.leaf]["sha256"]


@settings(deadline=None)
@given(families, policies, champions)
def test_the_winner_is_not_dominated(make_report, make_baseline, family, policy, champion):
    decision = decide(make_baseline(), {name: make_report(**each) for name, each in family.items()}, policy, champion)
    if decision.winner is None:
        return

    def worth(verdict):
        names = [preference.figure for preference in policy.priority]
        values = [-verdict.figures.get(name, math.inf) for name in names if name != "metric"]
        return [*values, verdict.figures["accuracy"]]

    won = worth(verdict_on(decision, decision.winner))
    for verdict in decision.verdicts:
        if verdict.qualified:
            pairs = list(zip(worth(verdict), won, strict=True))
            assert not (all(a >= b for a, b in pairs) and any(a > b for a, b in pairs))
        else:
            assert not verdict.on_front and verdict.dominated_by is None


@settings(deadline=None)
@given(families, policies, champions)
def test_copies_of_leaves_change_nothing(make_report, make_baseline, family, policy, champion):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    copies = {f"z{name}": report for name, report in leaves.items()}
    before = decide(make_baseline(), leaves, policy, champion)
    after = decide(make_baseline(), {**leaves, **copies}, policy, champion)
    assert after.winner == before.winner
    for verdict in before.verdicts:
        copy = verdict_on(after, f"z{verdict.leaf}")
        assert (copy.qualified, copy.on_front) == (verdict.qualified, verdict.on_front)


@settings(deadline=None)
@given(families, policies, champions)
def test_a_leaf_that_does_not_qualify_changes_nothing_for_the_others(
    make_report, make_baseline, family, policy, champion
):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    before = decide(make_baseline(), leaves, policy, champion, ["gone"])
    best = {"gzip_bytes": 1, "tflite_bytes": 1, "npu": {"latency_ms": 0.0}}
    for bad in (
        make_report(math.nan, **best),
        make_report(1.0, broken=["conv"], **best),
        make_report(1.0, sha256="gone", **best),
    ):
        after = decide(make_baseline(), {**leaves, "bad": bad}, policy, champion, ["gone"])
        assert after.winner == before.winner
        assert tuple(each for each in after.verdicts if each.leaf != "bad") == before.verdicts


@settings(deadline=None)
@given(families, policies, champions, withdrawals)
def test_every_verdict_has_a_reason_with_a_figure(make_report, make_baseline, family, policy, champion, withdrawn):
    leaves = {name: make_report(**leaf) for name, leaf in family.items()}
    decision = decide(make_baseline(), leaves, policy, champion, withdrawn)
    for verdict in decision.verdicts:
        assert any(character.isdigit() for character in verdict.reason) or "nan" in verdict.reason
        for layer in family[verdict.leaf]["broken"]:
            assert not verdict.qualified
            assert f"'{layer}'" in verdict.reason
