"""Which leaves share a predicted file, and what an axis of the grid changes."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.prescreen.recipe import configuration_of, recipes_over
from collabopt.pipelines import parameters_of
from collabopt.pipelines.tree import TREE

WAYS = {leaf.name: [(stage.name, stage.technique.name) for stage in TREE.path(leaf.name)] for leaf in TREE.leaves()}
GRID = {"sparsity": [0.5, 0.8], "clusters": [8, 16, 32]}
PARAMETERS = parameters_of("exhaustive")


def distinct(recipes):
    return {recipe for of_leaf in recipes.values() for recipe in of_leaf}


def test_leaves_of_one_structure_share_a_file_and_no_axis_makes_one_that_it_does_not_change():
    recipes = recipes_over(WAYS, GRID, PARAMETERS, {})
    assert len(distinct(recipes)) == 1 + 2 + 3 + 6
    assert {leaf: len(of_leaf) for leaf, of_leaf in recipes.items()} == {
        **{"ptq": 1, "qat": 1, "pruned_ptq": 2, "pqat": 2, "clustered_ptq": 3, "cqat": 3},
        **{"pruned_clustered_ptq": 6, "pcqat": 6},
    }
    for untrained, trained in [("ptq", "qat"), ("pruned_ptq", "pqat"), ("clustered_ptq", "cqat")]:
        assert recipes[untrained] == recipes[trained]
    assert list(recipes["ptq"].values()) == [{}]
    assert list(recipes["cqat"].values()) == [{"clusters": 8}, {"clusters": 16}, {"clusters": 32}]
    assert {"sparsity": 0.8, "clusters": 16} in recipes["pcqat"].values()


def test_what_a_file_depends_on_keeps_leaves_apart():
    overrides = {"cqat": {"palette": "channel"}, "pqat": {"representative_samples": 7}, "qat": {"epochs": 9}}
    recipes = recipes_over(WAYS, {"sparsity": [0.5], "clusters": [16]}, PARAMETERS, overrides)
    assert recipes["cqat"] != recipes["clustered_ptq"]
    assert recipes["pqat"] != recipes["pruned_ptq"]
    assert recipes["qat"] == recipes["ptq"]


def test_how_a_stage_is_trained_changes_no_file():
    trained = {"epochs": 9, "learning_rate": 0.1, "qat_epochs": 7}
    overrides = {"pruned": {"optimizer": "sgd"}}
    assert distinct(recipes_over(WAYS, GRID, {**PARAMETERS, **trained}, overrides)) == distinct(
        recipes_over(WAYS, GRID, PARAMETERS, {})
    )


def test_a_stage_of_its_own_setting_is_not_moved_by_the_parameter():
    recipes = recipes_over(
        WAYS, {"sparsity": [0.5], "clusters": [16]}, PARAMETERS, {"pruned": {"target_sparsity": 0.9}}
    )
    assert list(recipes["pcqat"].values()) == [{"sparsity": 0.9, "clusters": 16}]


def test_the_accelerator_of_a_policy_is_that_of_every_leaf():
    recipes = recipes_over(WAYS, GRID, PARAMETERS, {"ptq": {"accelerator": "ethos-u55-32"}}, "ethos-u65-256")
    assert {recipe.accelerator for recipe in distinct(recipes)} == {"ethos-u65-256"}


def test_a_value_that_a_technique_does_not_take_is_refused():
    with pytest.raises(CollaboptError, match=r"'pruned_clustered'.*number_of_clusters=2"):
        recipes_over(WAYS, {"sparsity": [0.5], "clusters": [16, 2]}, PARAMETERS, {})


def test_the_configuration_of_a_trained_leaf_is_read_off_its_lineage():
    lineage = [
        ("import_model", {"seed": 0}),
        ("prune", {"target_sparsity": 0.7, "epochs": 3}),
        ("sparsity_preserving_cluster", {"number_of_clusters": 12}),
        ("sparsity_cluster_preserving_qat", {"epochs": 1}),
    ]
    assert configuration_of(lineage) == {"sparsity": 0.7, "clusters": 12}
