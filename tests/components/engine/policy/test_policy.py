import json
import subprocess
import sys
from dataclasses import replace

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.figures import FIGURES
from collabopt.components.engine.policy.policy import (
    Goal,
    Policy,
    Preference,
    check_task,
    example_policies,
    parse_policy,
    policy_schema,
    read_policy,
)
from collabopt.components.engine.training.task import Metric, Task

DEFAULT = Policy(
    accelerator=None,
    goals=(Goal(figure="metric", max_drop=0.02),),
    priority=(Preference(figure="packed_bytes", within="1%"), Preference(figure="metric")),
    when_none_qualifies="keep",
)
EVERYTHING = """
accelerator: ethos-u55-128
goals:
  - figure: metric
    max_drop: 0.02
    against: baseline
  - figure: packed_bytes
    threshold: 60_000
  - figure: npu_latency_ms
    max_ratio: 0.8
    against: champion
  - figure: packed_bytes
    min_improvement: 5%
    against: champion
  - {figure: recall, threshold: 0.5, higher_is_better: true}
priority:
  - {figure: packed_bytes, within: 2%}
  - metric
  - {figure: recall, higher_is_better: true}
when_none_qualifies: fail
"""


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "null", "{}"])
def test_an_empty_policy_is_the_default_one(text):
    assert parse_policy(text) == DEFAULT


def test_every_key_is_read():
    policy = parse_policy(EVERYTHING)
    assert policy == Policy(
        accelerator="ethos-u55-128",
        goals=(
            Goal(figure="metric", max_drop=0.02, against="baseline"),
            Goal(figure="packed_bytes", threshold=60000),
            Goal(figure="npu_latency_ms", max_ratio=0.8, against="champion"),
            Goal(figure="packed_bytes", min_improvement="5%", against="champion"),
            Goal(figure="recall", threshold=0.5, higher_is_better=True),
        ),
        priority=(
            Preference(figure="packed_bytes", within="2%"),
            Preference(figure="metric"),
            Preference(figure="recall", higher_is_better=True),
        ),
        when_none_qualifies="fail",
    )
    assert [goal.kind for goal in policy.goals] == [
        "max_drop", "threshold", "max_ratio", "min_improvement", "threshold"
    ]  # fmt: skip
    assert [goal.reference for goal in policy.goals] == ["baseline", None, "champion", "champion", None]
    assert [goal.limit for goal in policy.goals] == [0.02, 60000.0, 0.8, "5%", 0.5]


def test_the_baseline_is_what_is_compared_with_where_nothing_is_said():
    (goal,) = parse_policy("goals: [{figure: metric, max_drop: 0}]").goals
    assert (goal.reference, goal.limit) == ("baseline", 0.0)


def test_a_policy_survives_json():
    for policy in (DEFAULT, parse_policy(EVERYTHING)):
        assert Policy.model_validate_json(policy.model_dump_json()) == policy


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("max_drop: 0.1", "unknown key 'max_drop' (line 2)"),
        ("goals:\n  - figure: metric\n    max_dorp: 0.1", "unknown key 'max_dorp' (line 4)"),
        ("goals:\n  - figure: metric\n    max_drop: -0.1", "goals[0].max_drop: -0.1 (line 4): must be finite and not"),
        ("goals:\n  - figure: metric\n    max_drop: .nan", "goals[0].max_drop: nan (line 4): must be finite"),
        ("goals:\n  - figure: metric\n    max_drop: .inf", "goals[0].max_drop: inf (line 4): must be finite"),
        (f"goals:\n  - figure: metric\n    max_drop: 1{'0' * 400}", "(line 4): must be finite"),
        (f"goals:\n  - figure: metric\n    max_drop: 1{'0' * 400}%", "(line 4): write a number"),
        ("goals:\n  - figure: metric\n    max_drop: true", "goals[0].max_drop: True (line 4): must be a number"),
        ("goals:\n  - figure: metric\n    max_drop: 1e-2", "goals[0].max_drop: '1e-2' (line 4): write a number, as"),
        ("goals:\n  - figure: metric\n    max_drop: 2 %", "goals[0].max_drop: '2 %' (line 4)"),
        ("goals:\n  - figure: metric\n    max_drop: 2%%", "goals[0].max_drop: '2%%' (line 4): write a number"),
        ("goals:\n  - figure: metric\n    max_drop: -2%", "goals[0].max_drop: '-2%' (line 4)"),
        ("goals:\n  - figure: metric\n    max_drop: ٢%", "goals[0].max_drop: '٢%' (line 4)"),
        ("goals:\n  - figure: metric\n    max_drop: [0.1]", "goals[0].max_drop: [0.1] (line 4): must be a number"),
        ("goals:\n  - figure: metric\n    max_drop: 2020-13-45", "not valid YAML"),
        ("goals:\n  - figure: metric\n    threshold: 5%", "goals[0].threshold: '5%' (line 4): must be a number"),
        ("goals:\n  - figure: metric\n    threshold: -1", "goals[0].threshold: -1 (line 4)"),
        (
            "goals:\n  - figure: metric\n    max_drop:",
            "goals[0]: {'figure': 'metric', 'max_drop': None} (line 3): give",
        ),
        ("goals:\n  - figure: metric", "(line 3): give exactly one of threshold, max_drop, max_ratio, min_improvement"),
        (
            "goals:\n  - figure: metric\n    threshold: 1\n    max_drop: 1",
            "goals[0].max_drop: 1 (line 5): give exactly one of threshold, max_drop, max_ratio, min_improvement, "
            "not threshold and max_drop",
        ),
        ("goals:\n  - max_drop: 1", "goals[0].figure is missing (line 3)"),
        ("goals:\n  - figure:\n    max_drop: 1", "goals[0].figure: None (line 3)"),
        ("goals:\n  - metric", "goals[0]: 'metric' (line 3): must map keys to values"),
        ("goals: 3", "goals: 3 (line 2): must be a list"),
        ("goals:", "goals: None (line 2): must be a list"),
        (
            "goals:\n  - figure: packed_byte\n    threshold: 1",
            "(line 3): is no figure that every leaf has (did you mean",
        ),
        ("goals:\n  - figure: recall\n    threshold: 1", "goals[0].figure: 'recall' (line 3): is no figure"),
        (
            "goals:\n  - figure: metric\n    max_drop: 0\n    higher_is_better: true",
            "goals[0].higher_is_better: True (line 5): the task says",
        ),
        (
            "goals:\n  - figure: sparsity\n    threshold: 0.5\n    higher_is_better: false",
            "goals[0].higher_is_better: False (line 5): of 'sparsity' more is better",
        ),
        (
            "goals:\n  - figure: metric\n    threshold: 0.5\n    against: baseline",
            "goals[0].against: 'baseline' (line 5): a threshold is compared with nothing",
        ),
        (
            "goals:\n  - figure: metric\n    max_drop: 0.5\n    against: previous",
            "goals[0].against: 'previous' (line 5): Input should be 'baseline' or 'champion'",
        ),
        ("goals:\n  - figure: metric\n    max_ratio: 1", "goals[0].max_ratio: 1 (line 4): max_ratio is for figures"),
        ("goals:\n  - figure: sparsity\n    max_ratio: 1", "goals[0].max_ratio: 1 (line 4): max_ratio is for figures"),
        ("goals:\n  - figure: gzip_bytes\n    max_ratio: 80%", "goals[0].max_ratio: '80%' (line 4): must be a number"),
        (
            "goals:\n  - figure: host_latency_ms\n    max_ratio: 1\n    against: champion",
            "goals[0].max_ratio: 1 (line 4): 'host_latency_ms' compares machines",
        ),
        ("priority: []", "priority: [] (line 2): must name at least one figure"),
        ("priority: metric", "priority: 'metric' (line 2): must be a list"),
        ("priority: !!set {metric, packed_bytes}", "(line 2): must be a list"),
        (
            "priority:\n  - metric\n  - packed_bytes\n  - metric",
            "priority[2]: 'metric' (line 5): 'metric' is there twice",
        ),
        ("priority:\n  - packed_bytes\n  - figure: packed_bytes\n    within: 1%", "priority[1]: {"),
        ("priority:\n  - metric\n  - host_latency_ms", "'host_latency_ms' (line 4): 'host_latency_ms' cannot rank"),
        ("priority:\n  - recall", "priority[0].figure: 'recall' (line 3): is no figure"),
        ("priority:\n  - figure: metric\n    within: -1%", "priority[0].within: '-1%' (line 4)"),
        ("priority:\n  - figure: metric\n    margin: 1%", "unknown key 'margin' (line 4)"),
        ("when_none_qualifies: stop", "when_none_qualifies: 'stop' (line 2): Input should be 'keep' or 'fail'"),
        ("accelerator: ethos-u55", "accelerator: 'ethos-u55' (line 2): Input should be 'ethos-u55-32'"),
        ("3: 4", "unknown key '3' (line 2)"),
        ("priority: [metric]\npriority: [metric]", "'priority' twice (lines 2 and 3)"),
        ("goals:\n  - figure: metric\n    max_drop: 1\n    max_drop: 2", "'max_drop' twice (lines 4 and 5)"),
        ("goals: !!python/object/apply:os.getcwd []", "line 2"),
        ("goals: &a [*a]", "goals[0]"),
        ("- goals", "line 2"),
        ("goals: [1", "line"),
    ],
)
def test_a_bad_policy_is_refused_with_key_and_line(text, problem):
    with pytest.raises(CollaboptError) as caught:
        parse_policy(f"# a policy\n{text}\n")
    assert problem in str(caught.value)
    assert caught.value.todo


def test_the_refusal_of_an_unknown_figure_lists_the_legal_ones():
    with pytest.raises(CollaboptError) as caught:
        parse_policy("priority: [latency]")
    assert all(name in caught.value.todo for name in ("metric", *FIGURES))


def test_all_problems_are_named_at_once():
    with pytest.raises(CollaboptError) as caught:
        parse_policy("goals:\n- figure: metric\n  max_drop: -1\n- figure: gzip_bytes\n  threshold: x\nsize: 3\n")
    for problem in ("goals[0].max_drop: -1 (line 3)", "goals[1].threshold: 'x' (line 5)", "'size' (line 6)"):
        assert problem in caught.value.what


@pytest.mark.parametrize("text", ["- a\n- b\n", "0.02", "max_drop=0.1"])
def test_other_shapes_than_a_mapping_are_refused(text):
    with pytest.raises(CollaboptError, match="map keys to values"):
        parse_policy(text)


@settings(deadline=None)
@given(
    st.text(max_size=80)
    | st.text(alphabet="goals: 0.1e-\n[]{}&*!|>'\"#?%", max_size=60)
    | st.recursive(
        st.none() | st.booleans() | st.floats() | st.text(max_size=5) | st.sampled_from(["metric", "2%", "baseline"]),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(
                st.sampled_from(["goals", "priority", "figure", "threshold", "max_drop", "within", "against", "x"]),
                inner,
                max_size=4,
            )
        ),
        max_leaves=12,
    ).map(yaml.safe_dump)
)
def test_any_text_is_a_policy_or_a_readable_error(text):
    try:
        policy = parse_policy(text)
    except CollaboptError as error:
        assert error.what and error.todo
    else:
        assert Policy.model_validate_json(policy.model_dump_json()) == policy


def test_deep_nests_end_in_a_readable_error():
    with pytest.raises(CollaboptError, match="not valid"):
        parse_policy("goals: " + "[" * 5000 + "]" * 5000)
    laughs = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
        f"{new}: &{new} [{','.join(['*' + old] * 9)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
    )
    with pytest.raises(CollaboptError) as caught:
        parse_policy(laughs + "goals: *i\n")
    assert len(str(caught.value)) < 5000


def test_a_policy_is_read_from_a_file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("when_none_qualifies: fail\n", encoding="utf-8")
    assert read_policy(path) == Policy(when_none_qualifies="fail")
    path.write_text("# ok\npriority: []\n", encoding="utf-8")
    with pytest.raises(CollaboptError, match="line 2") as caught:
        read_policy(path)
    assert str(path) in caught.value.where


def test_files_that_cannot_be_read_are_reported(tmp_path):
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00\xd8")
    for path, problem in [
        (tmp_path / "missing.yaml", "No such file"),
        (tmp_path, "directory"),
        (tmp_path / "binary", "UTF-8"),
    ]:
        with pytest.raises(CollaboptError, match=problem) as caught:
            read_policy(path)
        assert caught.value.where == str(path)
        assert "microcontroller, npu, phone" in caught.value.todo


# --- what is shipped with it ---


def test_every_example_policy_parses_and_says_what_it_is_for():
    examples = example_policies()
    assert list(examples) == ["microcontroller", "npu", "phone"]
    policies = {name: parse_policy(text) for name, text in examples.items()}
    assert all(text.startswith("# ") for text in examples.values())
    assert all(any(goal.figure == "metric" for goal in policy.goals) for policy in policies.values())
    assert len({policy.priority for policy in policies.values()}) == 3
    assert policies["npu"].priority[0].figure == "npu_latency_ms"


def test_the_schema_tells_every_key_with_a_description():
    schema = policy_schema()
    assert json.loads(json.dumps(schema)) == schema
    tables = {"Policy": schema, **schema["$defs"]}
    assert {name: set(table["properties"]) for name, table in tables.items()} == {
        model.__name__: set(model.model_fields) for model in (Policy, Goal, Preference)
    }
    for table in tables.values():
        assert table["additionalProperties"] is False
        assert all(entry.get("description") for entry in table["properties"].values())
    assert schema["properties"]["priority"]["minItems"] == 1
    assert {"type": "string"} in schema["properties"]["priority"]["items"]["anyOf"]
    assert [each["required"] for each in schema["$defs"]["Goal"]["oneOf"]] == [
        ["threshold"], ["max_drop"], ["max_ratio"], ["min_improvement"]
    ]  # fmt: skip


MAE = Metric("mae", higher_is_better=False, compute=lambda outputs, labels: 0.0)
TASK = Task("regression", MAE, loss=lambda model: None, more_metrics=(replace(MAE, name="worst"),))


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("priority: [metric, {figure: mae, higher_is_better: true}]", "priority[1]", "the task says the opposite"),
        ("goals: [{figure: worst, higher_is_better: true, threshold: 1}]", "goals[0]", "the task says the opposite"),
        ("goals: [{figure: loss, higher_is_better: false, threshold: 1}]", "goals[0]", "'loss' is neither a figure"),
        # What stages log beside the task's metrics ranks nothing, least of all the host's latency.
        (
            "priority: [{figure: host_builtin_latency_ms, higher_is_better: false}]",
            "priority[0]",
            "is neither a figure",
        ),
    ],
)
def test_a_policy_may_not_contradict_the_task(text, where, what):
    with pytest.raises(CollaboptError) as refusal:
        check_task(parse_policy(text), TASK)
    assert what in refusal.value.what
    assert refusal.value.where == f"policy, {where}"
    assert "metric" in refusal.value.todo


def test_a_policy_may_name_every_metric_of_the_task():
    check_task(parse_policy("priority: [{figure: worst, higher_is_better: false}, metric, packed_bytes]"), TASK)
    check_task(Policy(), TASK)


def test_the_gate_decides_without_heavy_imports():
    heavy = ("tensorflow", "tf_keras", "numpy", "mlflow", "ai_edge_litert", "scipy")
    code = f"""
import sys
from dataclasses import replace
import collabopt.components.engine.gate.decision, collabopt.components.engine.policy.policy
print([name for name in {heavy} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
