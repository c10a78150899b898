"""What trials share."""

import itertools

import pytest

from collabopt.components.engine.search.budget import Budget
from collabopt.components.engine.search.progress import needed_for
from collabopt.components.engine.search.sharing import Place, plan_stages, trainings
from collabopt.components.engine.search.space import parse_space
from collabopt.components.engine.search.terms import terms_of
from collabopt.pipelines import parameters_of
from collabopt.pipelines.tree import TREE

PLACES = [Place(stage.name, stage.parent, stage.technique.name) for stage in TREE]
PARAMETERS = parameters_of("exhaustive")


def plan(configurations, overrides=None):
    return plan_stages(configurations, PLACES, PARAMETERS, overrides or {})


@pytest.fixture(scope="module")
def grid():
    points = [
        {"sparsity": sparsity, "clusters": clusters}
        for sparsity, clusters in itertools.product((0.5, 0.6, 0.8), (8, 16, 32))
    ]
    return plan(points)


def distinct(trials):
    return {stage.name: stage for trial in trials for stage in trial.values()}


def test_a_grid_of_three_by_three_trains_half_of_what_it_would_without_sharing(grid):
    run, without = trainings(distinct(grid).values()), sum(trainings(trial.values()) for trial in grid)
    assert (run, without) == (1 + 3 * 3 + 3 * 3 + 3 + 3 + 3 + 3, 9 * 7)
    assert run / without <= 0.6


def test_one_pruned_model_serves_every_number_of_clusters_below_it(grid):
    assert [trial["pruned"].name for trial in grid] == [*["pruned@0"] * 3, *["pruned@3"] * 3, *["pruned@6"] * 3]
    assert {grid[1]["pruned_clustered"].parent, grid[2]["pruned_clustered"].parent} == {"pruned@0"}
    assert len({trial["pcqat"].name for trial in grid}) == 9
    assert {trial["qat"].name for trial in grid} == {"qat@0"}


def test_names_do_not_change_when_trials_are_added():
    first = [{"sparsity": 0.5, "clusters": 8}, {"sparsity": 0.6, "clusters": 8}]
    assert plan(first) == plan([*first, {"sparsity": 0.5, "clusters": 16}])[:2]


def test_a_setting_of_one_stage_changes_it_and_what_stands_below_it_alone():
    one, other = plan([{"pruned.schedule": "constant"}, {"pruned.schedule": "polynomial"}])
    changed = {name for name in one if one[name].name != other[name].name}
    assert changed == {"pruned", "pruned_ptq", "pqat", "pruned_clustered", "pruned_clustered_ptq", "pcqat"}
    assert other["pruned"].settings["schedule"] == "polynomial"


def test_an_axis_goes_before_what_was_given_to_the_stage():
    (trial,) = plan([{"pcqat.learning_rate": 1e-3}], {"pcqat": {"epochs": 7}})
    assert (trial["pcqat"].settings["learning_rate"], trial["pcqat"].settings["epochs"]) == (1e-3, 7)
    assert trial["pcqat"].epochs == 7 and trial["ptq"].epochs == 0


def test_what_leads_to_a_leaf_is_needed_for_it():
    (trial,) = plan([{}])
    needed = needed_for(["pcqat@0"], trial.values())
    assert [stage.name for stage in needed] == ["pruned@0", "pruned_clustered@0", "pcqat@0"]


def test_a_plan_says_something_to_the_stages_that_prune_and_cluster():
    space = parse_space("plan: {none: {}, mine: {prune: {conv: {target_sparsity: 0.3}}, cluster: {conv: exclude}}}")
    terms = terms_of(PLACES, PARAMETERS, {}, space, Budget())
    assert terms.default == {"plan": "none"}
    default, mine = terms.stages([terms.default, {"plan": "mine"}])
    layers = {name: stage.settings["layers"] for name, stage in mine.items() if "layers" in stage.settings}
    assert layers["pruned"] == {"conv": {"target_sparsity": 0.3}}
    assert layers["pruned_clustered"] == layers["clustered"] == {"conv": "exclude"}
    assert all(not stage.settings.get("layers") for stage in default.values())
    assert default["qat"].name == mine["qat"].name and default["pruned"].name != mine["pruned"].name
