"""Which stages are not trained because no leaf needs them."""

import pytest

from collabopt.components.engine.prescreen.branches import Branch, reasons_not_to_train, ways_to_leaves
from collabopt.pipelines.tree import PRUNING, TREE

TOO_LARGE = "predicted 'packed_bytes' is 9,000 B; accepted is at most 5,000 B"
TOO_SLOW = "predicted 'npu_latency_ms' is 9 ms; accepted is at most 5 ms"
ALL = {stage.name: Branch(stage.parent, stage.technique.name) for stage in TREE}


def not_trained(missed, stages=ALL):
    reasons = reasons_not_to_train(stages, {leaf: [TOO_LARGE] for leaf in missed})
    assert set(reasons) == set(stages)
    return {stage for stage, reason in reasons.items() if reason}


def test_every_leaf_is_reached_as_the_tree_reaches_it():
    assert ways_to_leaves(ALL) == {
        leaf.name: [(stage.name, stage.technique.name) for stage in TREE.path(leaf.name)] for leaf in TREE.leaves()
    }


@pytest.mark.parametrize(
    ("missed", "also"),
    [
        ([], []),
        (["ptq", "qat"], []),
        (["clustered_ptq"], []),
        (["clustered_ptq", "cqat"], ["clustered"]),
        (["pruned_ptq", "pqat"], []),
        (["pruned_clustered_ptq", "pcqat"], ["pruned_clustered"]),
        (["pruned_ptq", "pqat", "pruned_clustered_ptq", "pcqat"], ["pruned_clustered", "pruned"]),
        (["pruned_ptq", "pqat", "pruned_clustered_ptq"], []),
        ([leaf.name for leaf in TREE.leaves()], ["clustered", "pruned", "pruned_clustered"]),
    ],
)
def test_a_stage_is_trained_as_long_as_it_leads_to_one_leaf_that_is(missed, also):
    assert not_trained(missed) == {*missed, *also}


def test_leaves_that_the_pipeline_leaves_out_need_no_stage():
    """`pruned` of a tree whose only leaves below it are those two."""
    small = {name: ALL[name] for name in ("ptq", "pruned", "pruned_ptq", "pqat")}
    assert not_trained(["pruned_ptq", "pqat"], small) == {"pruned_ptq", "pqat", "pruned"}
    assert not_trained(["pruned_ptq"], {stage.name: ALL[stage.name] for stage in PRUNING}) == {"pruned_ptq"}


def test_the_reason_names_every_goal_and_above_leaves_every_leaf():
    missed = {"clustered_ptq": [TOO_LARGE, TOO_SLOW], "cqat": [TOO_LARGE]}
    reasons = reasons_not_to_train(ALL, missed)
    assert reasons["clustered_ptq"] == f"{TOO_LARGE}; {TOO_SLOW}"
    assert reasons["cqat"] == TOO_LARGE
    assert reasons["clustered"] == (
        f"no leaf below it can meet the policy (clustered_ptq: {TOO_LARGE}; {TOO_SLOW}; cqat: {TOO_LARGE})"
    )
    assert reasons["ptq"] == reasons["pruned"] == ""
    same = reasons_not_to_train(ALL, {leaf: [TOO_LARGE] for leaf in ("clustered_ptq", "cqat")})
    assert same["clustered"] == f"no leaf below it can meet the policy (clustered_ptq, cqat: {TOO_LARGE})"
