import pytest
from hypothesis import given
from hypothesis import strategies as st

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.policy import Policy, parse_policy, read_policy

DEFAULT = Policy(max_drop=0.02, max_tflite_bytes=None, max_gzip_bytes=None, minimize="gzip_bytes")


@pytest.mark.parametrize("text", ["", "\n", "# only a comment\n", "---\n", "null", "{}"])
def test_an_empty_policy_is_the_default_one(text):
    assert parse_policy(text) == DEFAULT


def test_every_key_is_read():
    text = "max_drop: 0.5\nmax_tflite_bytes: 250_000\nmax_gzip_bytes: 90000\nminimize: zip_bytes\n"
    assert parse_policy(text) == Policy(
        max_drop=0.5, max_tflite_bytes=250_000, max_gzip_bytes=90_000, minimize="zip_bytes"
    )


def test_no_drop_at_all_and_no_limit_can_be_written():
    assert parse_policy("max_drop: 0\nmax_gzip_bytes: null\n") == DEFAULT.model_copy(update={"max_drop": 0.0})


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("max_dorp: 0.1", "unknown key 'max_dorp' (line 2)"),
        ("max_drop: -0.1", "max_drop: -0.1 (line 2)"),
        ("max_drop: .nan", "max_drop: nan (line 2)"),
        ("max_drop: .inf", "max_drop: inf (line 2)"),
        ("max_drop: true", "max_drop: True (line 2)"),
        ("max_drop:", "max_drop: None (line 2)"),
        ("max_drop: 1e-2", "max_drop: '1e-2' (line 2)"),
        ("max_drop: [0.1]", "max_drop: [0.1] (line 2)"),
        ("max_drop: 2020-13-45", "not valid YAML"),
        ("max_gzip_bytes: -1", "max_gzip_bytes: -1 (line 2)"),
        ("max_gzip_bytes: 0", "max_gzip_bytes: 0 (line 2)"),
        ("max_tflite_bytes: 10.5", "max_tflite_bytes: 10.5 (line 2)"),
        ("minimize: latency", "minimize: 'latency' (line 2)"),
        ("minimize: null", "minimize: None (line 2)"),
        ("3: 4", "3"),
        ("max_drop: 0.1\nmax_drop: 0.2", "'max_drop' twice (lines 2 and 3)"),
        ("max_drop: !!python/object/apply:os.getcwd []", "line 2"),
        ("- max_drop", "line"),
        ("max_drop: [1", "line"),
    ],
)
def test_a_bad_policy_is_refused_with_key_and_line(line, problem):
    with pytest.raises(CollaboptError) as caught:
        parse_policy(f"# limits\n{line}\n")
    assert problem in str(caught.value)
    assert caught.value.todo


def test_all_problems_are_named_at_once():
    with pytest.raises(CollaboptError) as caught:
        parse_policy("max_drop: -1\nsize: 3\n")
    assert "max_drop" in caught.value.what and "'size' (line 2)" in caught.value.what


@pytest.mark.parametrize("text", ["- a\n- b\n", "0.02", "max_drop=0.1"])
def test_other_shapes_than_a_mapping_are_refused(text):
    with pytest.raises(CollaboptError, match="map keys to values"):
        parse_policy(text)


@given(st.text(max_size=80) | st.text(alphabet="max_drop: 0.1e-\n[]{}&*!|>'\"#?", max_size=60))
def test_any_text_is_a_policy_or_a_readable_error(text):
    try:
        assert isinstance(parse_policy(text), Policy)
    except CollaboptError as error:
        assert error.what and error.todo


def test_a_policy_is_read_from_a_file(tmp_path):
    path = tmp_path / "policy.yaml"
    path.write_text("max_drop: 0.5\n", encoding="utf-8")
    assert read_policy(path) == Policy(max_drop=0.5)
    path.write_text("# ok\nmax_drop: -1\n", encoding="utf-8")
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
