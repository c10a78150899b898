import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines import parameters_of
from collabopt.pipelines.grid import parse_grid

DEFAULTS = parameters_of("exhaustive")


def test_every_axis_has_its_values_and_those_not_in_the_grid_the_one_of_a_run():
    assert parse_grid(["clusters=8,16,32", "sparsity=0.5, 0.8"], DEFAULTS, {}, {}) == {
        "sparsity": [0.5, 0.8],
        "clusters": [8, 16, 32],
    }
    assert parse_grid(["clusters=8"], DEFAULTS, {"sparsity": 0.7}, {}) == {"sparsity": [0.7], "clusters": [8]}
    assert parse_grid([], DEFAULTS, {}, {}) == {"sparsity": [0.5], "clusters": [16]}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["sparsity"], "'sparsity' does not read as an axis"),
        (["=0.5"], "does not read as an axis"),
        (["sparsity="], "no value, or an empty one"),
        (["clusters=8,,16"], "no value, or an empty one"),
        (["sparsity=half"], "'half' is not a number"),
        (["clusters=8.5"], "'8.5' is not a whole number"),
        (["clusters=8,16,8"], "8 is there twice"),
        (["clusters=8", "clusters=16"], "the axis 'clusters' is given twice"),
        (["epochs=1,2"], "'epochs' changes what is learned, not what a file weighs"),
        (["sparsty=0.5"], "there is no axis 'sparsty'; did you mean 'sparsity'?"),
    ],
)
def test_a_grid_that_does_not_read_is_refused(texts: list[str], message: str):
    with pytest.raises(CollaboptError) as refusal:
        parse_grid(texts, DEFAULTS, {}, {})
    assert message in refusal.value.what
    assert f"--grid {texts[-1]}" in refusal.value.where
    assert refusal.value.todo


def test_a_grid_that_contradicts_what_else_is_given_is_refused():
    with pytest.raises(CollaboptError, match="'sparsity' has a value already"):
        parse_grid(["sparsity=0.5,0.8"], DEFAULTS, {"sparsity": 0.6}, {})
    overrides = {"pruned_clustered": {"number_of_clusters": 8}}
    with pytest.raises(CollaboptError, match="stage 'pruned_clustered' has a number_of_clusters of its own") as refusal:
        parse_grid(["clusters=8,16"], DEFAULTS, {}, overrides)
    assert "--set pruned_clustered.number_of_clusters=8" in refusal.value.where
    assert parse_grid(["sparsity=0.5,0.8"], DEFAULTS, {}, overrides)["clusters"] == [16]
