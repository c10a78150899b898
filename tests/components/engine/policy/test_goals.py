import pytest

from collabopt.components.engine.policy.goals import GoalResult, judge_goal
from collabopt.components.engine.policy.policy import Goal
from collabopt.components.engine.records import MetricOfRecord

ACCURACY = MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9)
BASELINE = {"accuracy": 0.9, "packed_bytes": 4000.0, "zero": 0.0, "negative": -2.0}
CHAMPION = {"accuracy": 0.88, "packed_bytes": 1000.0, "npu_latency_ms": 0.1}


def judged(goal, figures, champion=CHAMPION, metric=ACCURACY, no_npu=""):
    return judge_goal(Goal(**goal), metric, figures, {"baseline": BASELINE, "champion": champion}, no_npu)


@pytest.mark.parametrize(
    ("goal", "value", "met", "bound"),
    [
        ({"figure": "metric", "threshold": 0.9}, 0.9, True, 0.9),
        ({"figure": "metric", "threshold": 0.9}, 0.8999999999, False, 0.9),
        ({"figure": "packed_bytes", "threshold": 1000}, 1000, True, 1000),
        ({"figure": "packed_bytes", "threshold": 1000}, 1001, False, 1000),
        ({"figure": "sparsity", "threshold": 0.5}, 0.5, True, 0.5),
        ({"figure": "sparsity", "threshold": 0.5}, 0.4, False, 0.5),
        ({"figure": "metric", "max_drop": 0.02}, 0.88, True, 0.88),
        ({"figure": "metric", "max_drop": 0.02}, 0.8799, False, 0.88),
        ({"figure": "metric", "max_drop": "10%"}, 0.81, True, 0.81),
        ({"figure": "metric", "max_drop": "10%"}, 0.8099, False, 0.81),
        ({"figure": "metric", "max_drop": 0}, 0.9, True, 0.9),
        ({"figure": "metric", "max_drop": 0, "against": "champion"}, 0.879, False, 0.88),
        ({"figure": "packed_bytes", "max_drop": 100, "against": "champion"}, 1100, True, 1100),
        ({"figure": "packed_bytes", "max_drop": 100, "against": "champion"}, 1101, False, 1100),
        ({"figure": "packed_bytes", "max_ratio": 0.25}, 1000, True, 1000),
        ({"figure": "packed_bytes", "max_ratio": 0.25}, 1001, False, 1000),
        ({"figure": "npu_latency_ms", "max_ratio": 0.8, "against": "champion"}, 0.08, True, 0.08),
        ({"figure": "npu_latency_ms", "max_ratio": 0.8, "against": "champion"}, 0.0801, False, 0.08),
        ({"figure": "packed_bytes", "min_improvement": "5%", "against": "champion"}, 950, True, 950),
        ({"figure": "packed_bytes", "min_improvement": "5%", "against": "champion"}, 951, False, 950),
        ({"figure": "metric", "min_improvement": 0.01, "against": "champion"}, 0.89, True, 0.89),
        ({"figure": "metric", "min_improvement": 0.01, "against": "champion"}, 0.8899, False, 0.89),
        ({"figure": "metric", "min_improvement": 0, "against": "champion"}, 0.88, True, 0.88),
        ({"figure": "zero", "min_improvement": "5%", "higher_is_better": False}, 0.0, False, 0.0),
        ({"figure": "zero", "min_improvement": "5%", "higher_is_better": True}, 0.1, True, 0.0),
        ({"figure": "zero", "max_ratio": 0.5, "higher_is_better": False}, 0.0, True, 0.0),
        ({"figure": "negative", "max_drop": "10%", "higher_is_better": True}, -2.2, True, -2.2),
        ({"figure": "negative", "max_drop": "10%", "higher_is_better": True}, -2.3, False, -2.2),
        ({"figure": "negative", "max_ratio": 0.5, "higher_is_better": False}, -3.0, False, None),
    ],
)
def test_a_goal_is_met_up_to_its_bound(goal, value, met, bound):
    name = "accuracy" if goal["figure"] == "metric" else goal["figure"]
    result = judged(goal, {name: value})
    assert result.met is met
    assert (result.figure, result.value) == (name, value)
    assert result.bound == (None if bound is None else pytest.approx(bound))


@pytest.mark.parametrize(("reference", "value", "limit"), [(0.91, 0.89, 0.02), (0.52, 0.47, 0.05), (0.51, 0.41, 0.1)])
def test_floating_point_does_not_refuse_a_drop_of_exactly_the_limit(reference, value, limit):
    assert reference - value > limit or value < reference - limit
    references = {"baseline": {"accuracy": reference}, "champion": None}
    assert judge_goal(Goal(figure="metric", max_drop=limit), ACCURACY, {"accuracy": value}, references).met


@pytest.mark.parametrize(
    ("goal", "figures", "reason"),
    [
        (
            {"figure": "metric", "max_drop": 0.02},
            {"accuracy": 0.8},
            "'accuracy' is 0.8000, 0.1000 worse than the baseline; accepted is at most 0.02",
        ),
        (
            {"figure": "metric", "max_drop": "2%"},
            {"accuracy": 0.9},
            "'accuracy' is 0.9000, as good as the baseline; accepted is at most 2%",
        ),
        (
            {"figure": "packed_bytes", "threshold": 60000},
            {"packed_bytes": 71234},
            "'packed_bytes' is 71,234 B; accepted is at most 60,000 B",
        ),
        (
            {"figure": "metric", "threshold": 0.85},
            {"accuracy": 0.8},
            "'accuracy' is 0.8000; required is at least 0.85",
        ),
        (
            {"figure": "npu_latency_ms", "max_ratio": 0.8, "against": "champion"},
            {"npu_latency_ms": 0.111},
            "'npu_latency_ms' is 0.111 ms, the champion's 0.1 ms; accepted is at most 0.8 times that",
        ),
        (
            {"figure": "packed_bytes", "min_improvement": "5%", "against": "champion"},
            {"packed_bytes": 990},
            "'packed_bytes' is 990 B, 10 B better than the champion; required is at least 5%",
        ),
    ],
)
def test_the_reason_gives_the_figures(goal, figures, reason):
    assert judged(goal, figures).reason == reason


def test_a_figure_that_the_leaf_lacks_meets_no_goal():
    for champion in (CHAMPION, None):
        goal = {"figure": "npu_latency_ms", "max_ratio": 0.8, "against": "champion"}
        result = judged(goal, {}, champion, no_npu="it has float operators only")
        assert (result.met, result.value) == (False, None)
        assert result.reason == (
            "it has no 'npu_latency_ms' (it has float operators only); the goal is npu_latency_ms at most 0.8 times "
            "the champion's"
        )
    assert judged({"figure": "gzip_bytes", "threshold": 5}, {}, no_npu="why").reason == (
        "it has no 'gzip_bytes'; the goal is gzip_bytes of at most 5 B"
    )


@pytest.mark.parametrize("kind", ["max_drop", "max_ratio", "min_improvement"])
def test_without_a_champion_there_is_nothing_to_be_worse_than(kind):
    goal = {"figure": "packed_bytes", kind: 0.5, "against": "champion"}
    result = judged(goal, {"packed_bytes": 10**9}, champion=None)
    assert (result.met, result.reference) == (True, None)
    assert result.reason.endswith("there is no champion yet to compare it with")


@pytest.mark.parametrize("kind", ["max_drop", "max_ratio", "min_improvement"])
@pytest.mark.parametrize("against", ["baseline", "champion"])
def test_a_reference_without_the_figure_meets_no_goal(kind, against):
    result = judged({"figure": "npu_macs", kind: 0.5, "against": against}, {"npu_macs": 1})
    assert (result.met, result.reference) == (False, None)
    assert f"but the {against} has no 'npu_macs' that it could be compared with" in result.reason


def test_a_metric_that_should_be_low_is_judged_so():
    mae = MetricOfRecord(name="mae", higher_is_better=False, baseline=1.0)
    references = {"baseline": {"mae": 1.0}, "champion": None}
    goal = Goal(figure="metric", max_drop=0.1)
    assert judge_goal(goal, mae, {"mae": 1.1}, references).met
    assert not judge_goal(goal, mae, {"mae": 1.2}, references).met


def test_limits_beyond_every_number_leave_json_readable():
    result = judged({"figure": "packed_bytes", "max_drop": "1" + "0" * 307 + "%"}, {"packed_bytes": 1})
    assert (result.met, result.bound) == (True, None)
    assert GoalResult.model_validate_json(result.model_dump_json()) == result
