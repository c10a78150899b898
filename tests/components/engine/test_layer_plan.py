"""Plan files, and settings of single layers as stages take them."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_plan import LayerPlan, plan_yaml, read_layer_plan
from collabopt.components.engine.settings import settings_for

PLAN = """\
prune:
  block1_*: {target_sparsity: 0.8}
  conv: exclude
cluster:
  dense: {number_of_clusters: 8}
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text):
        (tmp_path / "plan.yaml").write_text(text)
        return read_layer_plan(tmp_path / "plan.yaml")

    return from_text


def test_a_plan_speaks_to_every_technique_that_it_concerns(read):
    plan = read(PLAN)
    assert plan.settings_of("prune") == {"block1_*": {"target_sparsity": 0.8}, "conv": "exclude"}
    assert plan.settings_of("cluster") == {"dense": {"number_of_clusters": 8}}
    assert plan.settings_of("sparsity_preserving_cluster") == plan.settings_of("cluster")
    assert plan.settings_of("quantize_aware_train") == {}


def test_a_plan_that_is_written_reads_the_same(read):
    plan = read(PLAN)
    text = plan_yaml(plan, {"": "two\nlines", "prune": "why"})
    assert text.startswith("# two\n# lines\n# why\nprune:\n")
    assert read(text) == plan
    assert plan_yaml(LayerPlan(), {}) == "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "prune:\n  conv: {target_sparsity: 1.0}\n",
            r"prune.conv.target_sparsity: Input should be less than 1.*line 2",
        ),
        ("prune:\n  conv: excluded\n", "prune.conv: Input should be 'exclude'"),
        ("prune:\n  conv: {number_of_clusters: 4}\n", "prune.conv.target_sparsity: Field required"),
        ("cluster:\n\n  conv: {number_of_clusters: 1}\n", "greater than or equal to 2.*line 3"),
        ("clusters: {}\n", "clusters: Extra inputs are not permitted"),
        ("", "the plan says nothing"),
        ("- prune\n", "must map keys to values"),
        ("prune:\n  conv: exclude\n  conv: exclude\n", "gives 'conv' twice"),
    ],
)
def test_what_is_no_plan_is_refused_where_it_is_wrong(read, text, expected):
    with pytest.raises(CollaboptError, match=f"(?s){expected}"):
        read(text)


def test_a_missing_plan_is_refused(tmp_path):
    with pytest.raises(CollaboptError, match="cannot be read"):
        read_layer_plan(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("technique", "layers", "expected"),
    [
        ("prune", {"b*": {"target_sparsity": -0.1}}, "layers.b*.target_sparsity=-0.1: Input should be greater than"),
        ("prune", {"b*": "none"}, "layers.b*='none': Input should be 'exclude'"),
        ("cluster", {"b*": {"number_of_clusters": True}}, "a number is wanted, not true or false"),
        ("sparsity_preserving_cluster", {"b*": {"number_of_clusters": 2}}, "greater than or equal to 3"),
        ("cluster", {"": "exclude"}, "at least 1 character"),
    ],
)
def test_settings_of_layers_that_are_not_legal_name_stage_and_pattern(technique, layers, expected):
    with pytest.raises(CollaboptError) as error:
        settings_for(technique, {"layers": layers}, "here")
    assert expected in str(error.value)
    assert "stage 'here'" in str(error.value)


def test_a_layer_that_starts_the_schedule_beyond_its_target_is_refused():
    ramp = {"schedule": "polynomial", "initial_sparsity": 0.3}
    with pytest.raises(CollaboptError, match="below target_sparsity of layers 'conv'"):
        settings_for("prune", {**ramp, "layers": {"conv": {"target_sparsity": 0.2}}}, "pruned")
    settings_for("prune", {**ramp, "layers": {"conv": {"target_sparsity": 0}}}, "pruned")


@pytest.mark.parametrize(
    ("technique", "own"), [("prune", {"target_sparsity": 0.25}), ("cluster", {"number_of_clusters": 8})]
)
def test_settings_are_hashed_by_their_layers_in_whatever_order(technique, own):
    def settings(layers):
        return settings_for(technique, {"layers": layers}, "stage")

    one, other = settings({"a": own, "b": "exclude"}), settings({"b": "exclude", "a": own})
    assert one == other
    assert hash(one) == hash(other)
    assert len({one, other, settings({"a": own}), settings({})}) == 3


def test_whole_numbers_that_kubeflow_has_turned_into_floats_are_taken():
    settings = settings_for("cluster", {"layers": {"a": {"number_of_clusters": 8.0}}}, "clustered")
    assert settings.model_dump()["layers"] == {"a": {"number_of_clusters": 8}}
