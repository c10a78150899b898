"""What a space may look like, and what is refused with the line that it stands on."""

import pytest
import yaml

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.search.space import Choices, Range, parse_space, read_space

WHOLE = """
sparsity: [0.5, 0.8]
clusters: {low: 8, high: 32, step: 8}
learning_rate: {low: 1.0e-5, high: 1.0e-2, log: true}
pcqat.palette: [tensor, channel]
"""


def test_axes_are_lists_or_ranges():
    axes = parse_space(WHOLE).axes
    assert axes["sparsity"] == Choices((0.5, 0.8))
    assert axes["clusters"] == Range(low=8, high=32, step=8)
    assert axes["learning_rate"].log and not axes["learning_rate"].is_whole
    assert axes["pcqat.palette"] == Choices(("tensor", "channel"))


def test_a_number_without_a_point_is_a_number_whatever_yaml_takes_it_for():
    axes = parse_space("a: [1e-4, 1e-3]\nb: {low: 1e-5, high: 1e-2, log: true}").axes
    assert axes["a"] == Choices((1e-4, 1e-3)) and axes["b"] == Range(low=1e-5, high=1e-2, log=True)


def test_lists_alone_can_be_counted_through_and_ranges_cannot():
    assert parse_space("a: [1, 2]\nb: [x, y]").points() == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": "y"},
        {"a": 2, "b": "x"},
        {"a": 2, "b": "y"},
    ]
    assert parse_space(WHOLE).points() is None


@pytest.mark.parametrize(
    ("clusters", "inside"), [(8, True), (24, True), (32, True), (9, False), (40, False), ("many", False)]
)
def test_a_configuration_lies_in_the_space_or_not(clusters, inside):
    configuration = {"sparsity": 0.5, "clusters": clusters, "learning_rate": 1e-3, "pcqat.palette": "tensor"}
    assert parse_space(WHOLE).holds(configuration) is inside


@pytest.mark.parametrize("low", [0.0, 0.1, 0.2, 0.3])
def test_every_point_of_a_range_in_steps_lies_in_it_and_nothing_between(low):
    space = parse_space(f"sparsity: {{low: {low}, high: 0.9, step: 0.1}}\n")
    assert len(space.points()) == round(10 * (0.9 - low)) + 1
    assert all(space.holds(point) for point in space.points())
    assert not any(space.holds({"sparsity": point["sparsity"] + 0.05}) for point in space.points())


@pytest.mark.parametrize("step", [1 / 3, 1 / 7, 0.1, 1e-5])
def test_the_last_step_may_be_the_end(step):
    space = parse_space(f"sparsity: {{low: 0.0, high: {2 * step!r}, step: {step!r}}}\n")
    assert len(space.points()) == 3
    assert all(space.holds(point) for point in space.points())


def test_what_was_read_can_be_written():
    assert parse_space(WHOLE).as_yaml()["clusters"] == {"low": 8, "high": 32, "step": 8}
    assert parse_space(WHOLE).as_yaml()["sparsity"] == [0.5, 0.8]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "the space is empty"),
        ("sparsity: []", "'sparsity' has no value"),
        ("sparsity: 0.5", "neither a list nor a range"),
        ("sparsity: [0.5, 0.5]", "0.5 twice"),
        ("sparsity: [0.5, [0.6]]", "[0.6] is no value"),
        ("sparsity: [.nan]", "nan is no value"),
        ("epochs: [1]\nsparsity: {low: 0.8, high: 0.5}", "(line 2): `low` must be below `high`"),
        ("sparsity: {low: 0.5}", "high is missing"),
        ("sparsity: {low: 0.5, high: 0.8, steps: 0.1}", "unknown key 'steps'"),
        ("clusters: {low: true, high: 8}", "not valid: low: True (line 1): must be a number\n"),
        ("clusters: {low: 2, high: 8, step: two}", "not valid: step: 'two' (line 1): must be a number\n"),
        ("epochs: {low: 1, high: 8, step: 0.5}", "a whole step"),
        ("epochs: {low: 1, high: 8, step: 20}", "no larger than the range"),
        ("learning_rate: {low: 0.0, high: 1.0, log: true}", "above zero"),
        ("learning_rate: {low: 0.1, high: 1.0, log: true, step: 0.1}", "`step` or `log`"),
        ("epochs: [1]\nepochs: [2]", "'epochs' twice"),
        ("[sparsity]", "must map keys to values"),
    ],
)
def test_what_is_no_space_is_refused(text, said):
    with pytest.raises(CollaboptError) as refused:
        parse_space(text, "space.yaml")
    assert said in str(refused.value) and "space.yaml" in str(refused.value)


def test_a_file_that_is_not_there_is_an_error(tmp_path):
    with pytest.raises(CollaboptError, match="cannot be read"):
        read_space(tmp_path / "none.yaml")


PLANS = """
plan:
  none: {}
  gentle:
    prune: {conv: {target_sparsity: 0.3}}
    cluster: {"block*": exclude}
"""


def test_plans_are_an_axis_of_their_names():
    space = parse_space(PLANS)
    assert space.axes["plan"] == Choices(("none", "gentle"))
    assert space.plans["gentle"].settings_of("prune") == {"conv": {"target_sparsity": 0.3}}
    assert space.plans["gentle"].settings_of("sparsity_preserving_cluster") == {"block*": "exclude"}
    assert parse_space(yaml.safe_dump(space.as_yaml(), sort_keys=False)) == space


@pytest.mark.parametrize(
    ("text", "said", "where"),
    [
        ("plan: [gentle]", "'plan' gives no plans by name", "line 1"),
        ("plan: {}", "'plan' gives no plans by name", "line 1"),
        ("plan:\n  none: {prune: {conv: exclude}}", "'none' says something", "line 2"),
        ("plan:\n  mine:\n    prune: {conv: {sparsity: 0.3}}", "sparsity", "line 3"),
        ("plan:\n  mine:\n    prune: {conv: {target_sparsity: 2}}", "less than 1", "line 3"),
        ("plan:\n  mine: gentle", "not valid", "line 2"),
    ],
)
def test_what_is_no_plan_is_refused_with_its_line(text, said, where):
    with pytest.raises(CollaboptError, match=said) as caught:
        parse_space(text)
    assert where in caught.value.where
