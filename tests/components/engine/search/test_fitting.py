"""A space against the tree."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.search.fitting import check_space, default_space
from collabopt.components.engine.search.sharing import Place
from collabopt.components.engine.search.space import parse_space
from collabopt.pipelines import parameters_of
from collabopt.pipelines.tree import QUANTIZATION, TREE

PARAMETERS = parameters_of("exhaustive")


def places(tree=TREE):
    return [Place(stage.name, stage.parent, stage.technique.name) for stage in tree]


@pytest.mark.parametrize(
    "text",
    [
        "sparsity: [0.5, 0.6]\nclusters: {low: 8, high: 32, step: 8}\nqat_epochs: [1, 3]",
        "pcqat.palette: [tensor, channel]\npruned.schedule: [constant, polynomial]",
        "learning_rate: {low: 0.0001, high: 0.01, log: true}",
        "plan: {none: {}, mine: {cluster: {conv: {number_of_clusters: 4}}}}",
    ],
)
def test_what_fits_passes(text):
    check_space(parse_space(text), places(), PARAMETERS, {})


@pytest.mark.parametrize(
    ("text", "overrides", "given", "said"),
    [
        ("sparsty: [0.5]", {}, [], "did you mean 'sparsity'?"),
        ("seed: [1, 2]", {}, [], "unknown axis 'seed'"),
        ("epochs: [1]\npcquat.palette: [tensor]", {}, [], "did you mean 'pcqat'?"),
        ("pcqat.pallet: [tensor]", {}, [], "did you mean 'palette'?"),
        ("epochs: [1]\nsparsity: [0.5, 1.5]", {}, [], "'pruned' cannot run with, epochs=1, sparsity=1.5"),
        ("clusters: {low: 2, high: 8}", {}, [], "'pruned_clustered' cannot run with, clusters=2"),
        ("pcqat.palette: [sensor]", {}, [], "palette='sensor'"),
        (
            "plan: {mine: {cluster: {conv: {number_of_clusters: 2}}}}",
            {},
            [],
            "'pruned_clustered' cannot run with, plan",
        ),
        ("plan: {mine: {}}", {"clustered": {"layers": {"conv": "exclude"}}}, [], "'clustered' have settings already"),
        ("sparsity: [0.5, 0.8]\npruned.initial_sparsity: [0.0, 0.6]", {}, [], "initial_sparsity must be below"),
        ("sparsity: [0.5, 0.8]", {"pruned": {"target_sparsity": 0.5}}, [], "no stage listens to 'sparsity'"),
        ("sparsity: [0.5]\npruned.target_sparsity: [0.5]", {}, [], "no stage listens to 'sparsity'"),
        ("sparsity: [0.5, 0.8]", {}, ["sparsity"], "has a value already, --param sparsity=0.5"),
        ("epochs: {low: 1.0, high: 5.0}", {}, [], "should be a valid integer"),
        ("clusters: {low: 8, high: 3.2e1}", {}, [], "should be a valid integer"),
        ("epochs: [1]\npcqat.seed: [0, 1]", {}, [], "seed is no matter of better or worse"),
        ("pcqat.accelerator: [ethos-u55-128, ethos-u65-512]", {}, [], "accelerator is no matter of better or worse"),
        ("pcqat.epochs: [1]", {"pcqat": {"epochs": 2}}, [], "has a value already, --set pcqat.epochs=2"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(text, overrides, given, said):
    with pytest.raises(CollaboptError) as refused:
        check_space(parse_space(text, "space.yaml"), places(), PARAMETERS, overrides, given)
    assert said in str(refused.value)
    assert f"space.yaml, line {len(text.splitlines())}" in str(refused.value) or "line 1" in str(refused.value)


def test_an_axis_that_no_grown_stage_listens_to_is_refused():
    with pytest.raises(CollaboptError, match="no stage listens to 'clusters'"):
        check_space(parse_space("clusters: [8]"), places(QUANTIZATION), PARAMETERS, {})


def test_where_nothing_of_the_default_space_is_left_axes_that_somebody_listens_to_are_named():
    with pytest.raises(CollaboptError) as refused:
        check_space(default_space(places(QUANTIZATION), {"qat_epochs": 1}, 3), places(QUANTIZATION), PARAMETERS, {})
    assert "name one of qat_epochs, qat_learning_rate, batch_size" in str(refused.value)


def test_the_default_space_leaves_out_what_was_given():
    assert set(default_space(places(), {}, 3).axes) == {"sparsity", "clusters", "epochs"}
    assert set(default_space(places(), {"epochs": 3}, 3).axes) == {"sparsity", "clusters"}
    check_space(default_space(places(), {}, 3), places(), PARAMETERS, {})
