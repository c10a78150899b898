import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collabopt.components.engine.gate.selection import Axis, Candidate, axes_of, dominates, pareto_front, select
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.records import MetricOfRecord

ACCURACY = MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9)
METRIC = Axis("accuracy", higher_is_better=True)
PACKED = Axis("packed_bytes", higher_is_better=False)
LATENCY = Axis("npu_latency_ms", higher_is_better=False)


def candidate(name, accuracy=None, packed=None, latency=None, techniques=2):
    figures = {"accuracy": accuracy, "packed_bytes": packed, "npu_latency_ms": latency}
    return Candidate(name, {figure: value for figure, value in figures.items() if value is not None}, techniques)


def test_the_first_figure_decides_then_the_second():
    leaves = [candidate("a", 0.90, 120), candidate("b", 0.85, 100), candidate("c", 0.88, 100)]
    chosen = select(leaves, (PACKED, METRIC), ACCURACY)
    assert chosen.winner == "c"
    assert chosen.dominated == {"b": "c"}
    assert chosen.reasons == {
        "a": "'c' is better in packed_bytes, 100 B against 120 B",
        "b": "dominated by 'c': accuracy, 0.8800 against 0.8500",
        "c": "first by the priority: packed_bytes 100 B, then accuracy 0.8800",
    }


def test_what_is_within_the_margin_goes_on_to_the_next_figure():
    leaves = [candidate("small", 0.85, 100), candidate("good", 0.90, 102), candidate("best", 0.95, 103)]
    assert select(leaves, (Axis("packed_bytes", False, "2%"), METRIC), ACCURACY).winner == "good"
    assert select(leaves, (Axis("packed_bytes", False, 3.0), METRIC), ACCURACY).winner == "best"
    assert select(leaves, (PACKED, METRIC), ACCURACY).winner == "small"
    reasons = select(leaves, (Axis("packed_bytes", False, "2%"), METRIC), ACCURACY).reasons
    assert reasons["best"] == "'small' is better in packed_bytes, 100 B against 103 B, by more than 2%"
    assert reasons["small"] == "'good' is better in accuracy, 0.9000 against 0.8500"


def test_the_margin_of_a_figure_that_should_be_high_is_below_the_best():
    leaves = [candidate("good", 0.90, 200), candidate("small", 0.896, 100), candidate("tiny", 0.88, 10)]
    assert select(leaves, (Axis("accuracy", True, "0.5%"), PACKED), ACCURACY).winner == "small"
    assert select(leaves, (Axis("accuracy", True, 0.02), PACKED), ACCURACY).winner == "tiny"


def test_a_margin_does_not_let_a_dominated_leaf_win():
    """Both are within it, and the dominated one would win the tie-break."""
    leaves = [candidate("a", 0.9, 101, techniques=1), candidate("b", 0.9, 100, techniques=3)]
    assert select(leaves, (Axis("packed_bytes", False, "5%"),), ACCURACY).winner == "b"


def test_ties_go_to_fewer_techniques_then_to_the_first_name():
    leaves = [candidate("c", 0.9, 1), candidate("b", 0.9, 1, techniques=3), candidate("a", 0.9, 1, techniques=3)]
    chosen = select(leaves, (PACKED, METRIC), ACCURACY)
    assert chosen.winner == "c"
    assert chosen.reasons["a"] == "as good as 'c' by the priority, which takes fewer techniques, 2 against 3"
    chosen = select(leaves[1:], (PACKED, METRIC), ACCURACY)
    assert chosen.winner == "a"
    assert chosen.reasons["b"] == "as good as 'a' by the priority, which comes first by name, both with 3 techniques"
    assert chosen.dominated == {}


def test_the_deciding_metric_counts_where_the_priority_leaves_it_out():
    leaves = [candidate("a", 0.8, 100, techniques=1), candidate("b", 0.9, 100)]
    assert select(leaves, (PACKED,), ACCURACY).winner == "b"


@pytest.mark.parametrize("worst", [None, math.nan, math.inf, -math.inf])
def test_a_leaf_without_the_figure_ranks_last_on_it(worst):
    leaves = [candidate("a", 0.99, 1, worst), candidate("b", 0.80, 900, 5.0)]
    chosen = select(leaves, (LATENCY, PACKED), ACCURACY)
    assert chosen.winner == "b"
    assert chosen.reasons["a"] == "'b' is better in npu_latency_ms, 5 ms against unknown"
    assert not dominates(*leaves, (LATENCY, PACKED, METRIC))
    assert select([leaves[0]], (LATENCY, PACKED), ACCURACY).winner == "a"


def test_no_candidate_no_winner():
    assert select([], (PACKED,), ACCURACY).winner is None


def test_the_policy_gives_the_axes():
    policy = parse_policy("""
priority: [{figure: npu_latency_ms, within: 2%}, metric, sparsity, {figure: recall, higher_is_better: true}]
""")
    mae = MetricOfRecord(name="mae", higher_is_better=False, baseline=1.0)
    assert axes_of(policy, mae) == (
        Axis("npu_latency_ms", False, "2%"),
        Axis("mae", False),
        Axis("sparsity", True),
        Axis("recall", True),
    )


# --- properties ---

values = st.sampled_from([0.0, 1.0, 2.0, 100.0, 101.0, 102.0, math.nan, math.inf, -math.inf]) | st.floats(-5, 5)
figures = st.dictionaries(st.sampled_from(["accuracy", "packed_bytes", "npu_latency_ms"]), values, max_size=3)
families = st.dictionaries(
    st.text("abcdefgh", min_size=1, max_size=2), st.tuples(figures, st.integers(1, 3)), max_size=8
)
margins = st.just(0.0) | st.sampled_from(["2%", "50%", 1.0])
priorities = st.lists(
    st.builds(Axis, st.sampled_from(["accuracy", "packed_bytes", "npu_latency_ms"]), st.booleans(), margins),
    min_size=1,
    max_size=3,
    unique_by=lambda axis: axis.name,
).map(lambda axes: tuple(Axis(a.name, a.name == "accuracy", a.within) for a in axes))


def made(family):
    return [Candidate(name, figures, techniques) for name, (figures, techniques) in family.items()]


def goodness(candidate, axis):
    value = candidate.figures.get(axis.name, math.nan)
    if not math.isfinite(value):
        return -math.inf
    return value if axis.higher_is_better else -value


@settings(deadline=None)
@given(families, priorities)
def test_the_winner_is_a_candidate_that_none_dominates(family, priority):
    candidates = made(family)
    chosen = select(candidates, priority, ACCURACY)
    assert (chosen.winner is None) == (not candidates)
    assert set(chosen.reasons) == set(family)
    if chosen.winner:
        winner = next(each for each in candidates if each.name == chosen.winner)
        for other in candidates:
            pairs = [(goodness(other, axis), goodness(winner, axis)) for axis in (*priority, METRIC)]
            assert not (all(its >= own for its, own in pairs) and any(its > own for its, own in pairs))


@settings(deadline=None)
@given(families, priorities)
def test_without_margins_no_candidate_is_lexicographically_better_than_the_winner(family, priority):
    exact = tuple(Axis(axis.name, axis.higher_is_better) for axis in priority)
    candidates = made(family)
    chosen = select(candidates, exact, ACCURACY)
    if chosen.winner:
        ranks = {each.name: tuple(goodness(each, axis) for axis in (*exact, METRIC)) for each in candidates}
        assert ranks[chosen.winner][: len(exact)] == max(rank[: len(exact)] for rank in ranks.values())


@settings(deadline=None)
@given(families, priorities)
def test_a_winner_is_within_the_margin_of_the_best_in_the_first_figure(family, priority):
    candidates = made(family)
    chosen = select(candidates, priority, ACCURACY)
    if chosen.winner:
        first = priority[0]
        best = max(goodness(each, first) for each in candidates)
        own = next(goodness(each, first) for each in candidates if each.name == chosen.winner)
        if best == -math.inf:
            assert own == best
        else:
            margin = float(first.within[:-1]) / 100 * abs(best) if isinstance(first.within, str) else first.within
            assert own >= best - margin - 1e-6


@settings(deadline=None)
@given(families, priorities, st.randoms())
def test_the_order_of_the_candidates_does_not_matter(family, priority, random):
    candidates = made(family)
    shuffled = list(candidates)
    random.shuffle(shuffled)
    assert select(candidates, priority, ACCURACY) == select(shuffled, priority, ACCURACY)


@settings(deadline=None)
@given(families, priorities, st.data())
def test_copies_change_nothing(family, priority, data):
    if not family:
        return
    candidates = made(family)
    before = select(candidates, priority, ACCURACY)
    copied = data.draw(st.sampled_from(candidates))
    copy = Candidate(f"z{copied.name}", copied.figures, copied.techniques)
    after = select([*candidates, copy], priority, ACCURACY)
    assert after.winner == before.winner
    assert (copy.name in after.dominated) == (copied.name in after.dominated)
    assert {name for name in after.dominated if name != copy.name} == set(before.dominated)


@settings(deadline=None)
@given(families, priorities, st.sampled_from([math.nan, math.inf, -math.inf]))
def test_what_has_no_number_never_wins_over_what_has_one(family, priority, bad):
    candidates = made(family)
    before = select(candidates, priority, ACCURACY)
    nothing = Candidate("0", {name: bad for name in ("accuracy", "packed_bytes", "npu_latency_ms")}, 0)
    after = select([*candidates, nothing], priority, ACCURACY)
    assert not any(dominates(nothing, each, priority) for each in candidates)
    with_number = any(math.isfinite(goodness(each, axis)) for each in candidates for axis in (*priority, METRIC))
    if with_number:
        assert after.winner == before.winner


@settings(deadline=None)
@given(families, priorities)
def test_a_dominated_candidate_names_one_on_the_front_that_dominates_it(family, priority):
    candidates = {each.name: each for each in made(family)}
    axes = (*priority, METRIC)
    chosen = select(list(candidates.values()), priority, ACCURACY)
    front = {each.name for each in pareto_front(list(candidates.values()), axes)}
    assert set(chosen.dominated) == set(candidates) - front
    for name, by in chosen.dominated.items():
        assert by in front
        assert dominates(candidates[by], candidates[name], axes)
