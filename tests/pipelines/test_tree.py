"""The declared tree, and the trees that must be refused."""

import pytest

from collabopt.pipelines.tree import ROOT, TREE, IllegalTreeError, declare_tree

PTQ = "post_training_quantize"


def test_tree_has_the_eleven_stages_of_the_guide():
    shape = {(stage.name, stage.parent) for stage in TREE}
    assert shape == {
        ("ptq", ROOT),
        ("qat", ROOT),
        ("pruned", ROOT),
        ("pruned_ptq", "pruned"),
        ("pqat", "pruned"),
        ("pruned_clustered", "pruned"),
        ("pruned_clustered_ptq", "pruned_clustered"),
        ("pcqat", "pruned_clustered"),
        ("clustered", ROOT),
        ("clustered_ptq", "clustered"),
        ("cqat", "clustered"),
    }
    assert len(TREE.leaves()) == 8
    assert sum(stage.trains for stage in TREE) == 7


def test_pathways():
    standard = {leaf.name for leaf in TREE.leaves() if TREE.pathway(leaf.name) == "standard"}
    assert standard == {"ptq", "qat", "pruned_ptq", "clustered_ptq"}


def test_parents_come_before_children_whatever_the_order_of_declaration():
    tree = declare_tree([("leaf", "mid", PTQ), ("mid", ROOT, "prune")])
    assert [stage.name for stage in tree] == ["mid", "leaf"]


def test_restricted_to_keeps_the_path_to_every_leaf():
    tree = TREE.restricted_to(["pcqat", "ptq"])
    assert [stage.name for stage in tree] == ["ptq", "pruned", "pruned_clustered", "pcqat"]


def test_unknown_stage_names_the_known_ones():
    with pytest.raises(KeyError, match="pruned_clustered"):
        TREE["pruned_custered"]


@pytest.mark.parametrize(
    ("declaration", "parts"),
    [
        pytest.param(
            [("pruned", ROOT, "prune"), ("both", "pruned", "cluster"), ("leaf", "both", PTQ)],
            ["'both'", "cluster", "destroy", "sparse", "use sparsity_preserving_cluster there"],
            id="clustering that is not sparsity-preserving below pruned",
        ),
        pytest.param(
            [
                ("pruned", ROOT, "prune"),
                ("both", "pruned", "sparsity_preserving_cluster"),
                ("leaf", "both", "quantize_aware_train"),
            ],
            ["'leaf'", "destroy", "clustered and sparse", "use sparsity_cluster_preserving_qat there"],
            id="plain QAT below pruned_clustered",
        ),
        pytest.param(
            [
                ("pruned", ROOT, "prune"),
                ("both", "pruned", "sparsity_preserving_cluster"),
                ("leaf", "both", "sparsity_preserving_qat"),
            ],
            ["destroy", "clustered", "use sparsity_cluster_preserving_qat there"],
            id="PQAT below pruned_clustered",
        ),
        pytest.param(
            [("pruned", ROOT, "prune"), ("leaf", "pruned", "cluster_preserving_qat")],
            ["requires clustered", "use sparsity_preserving_qat there"],
            id="CQAT below pruned",
        ),
        pytest.param(
            [("both", ROOT, "sparsity_preserving_cluster"), ("leaf", "both", PTQ)],
            ["requires sparse", "use cluster there"],
            id="sparsity-preserving clustering of a dense model",
        ),
        pytest.param([("a", "b", "prune"), ("b", "a", "prune"), ("leaf", "a", PTQ)], ["cycle", "a, b"], id="a cycle"),
        pytest.param([("leaf", "prunned", PTQ)], ["unknown parent 'prunned'", ROOT], id="an unknown parent"),
        pytest.param([("leaf", ROOT, PTQ), ("leaf", ROOT, PTQ)], ["'leaf' is declared twice"], id="a duplicate name"),
        pytest.param([(ROOT, ROOT, PTQ)], ["'baseline' is declared twice"], id="a stage named like the root"),
        pytest.param(
            [("leaf", ROOT, PTQ), ("below", "leaf", PTQ)],
            ["'below' is below 'leaf'", "leaf", "'baseline' instead"],
            id="a leaf with children",
        ),
        pytest.param([("pruned", ROOT, "prune")], ["'pruned' has no children"], id="an interior stage without leaves"),
        pytest.param([("leaf", ROOT, "ptq")], ["unknown technique 'ptq'", PTQ], id="an unknown technique"),
    ],
)
def test_illegal_trees_are_refused(declaration, parts):
    with pytest.raises(IllegalTreeError) as refusal:
        declare_tree(declaration)
    for part in parts:
        assert part in str(refusal.value)
