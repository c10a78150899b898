"""`collabopt prescreen` on a small model, and what it refuses."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.prescreen.records import Prescreen
from collabopt.pipelines.tree import TREE

Command = Callable[..., tuple[int, str, str]]

# A process of its own: the command forks, and TensorFlow must not run in a process that forks.
MAKE_MODEL = """
import tf_keras
from tf_keras import layers
tf_keras.utils.set_random_seed(0)
image = layers.Input((8, 8, 1))
tensor = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
tensor = layers.Dense(3, activation="softmax", name="dense")(layers.Flatten()(tensor))
tf_keras.Model(image, tensor).save("model.keras")
"""
GRID = ["--grid", "sparsity=0.5,0.8", "clusters=4,5000"]
# What a policy with goals that training cannot change says; the sizes lie far from any leaf's.
POLICY = "goals: [{figure: metric, max_drop: 0.01}, {figure: packed_bytes, threshold: 100}]\n"


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("prescreen")
    subprocess.run([sys.executable, "-c", MAKE_MODEL], cwd=path, check=True, capture_output=True)
    random = np.random.default_rng(0)
    np.savez(path / "data.npz", x=random.random((200, 8, 8, 1), np.float32), y=random.integers(0, 3, 200))
    (path / "policy.yaml").write_text(POLICY)
    return path


@pytest.fixture(scope="module")
def prescreen(directory: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [Path(sys.executable).parent / "collabopt", "prescreen", "--data", "data.npz", *arguments],
            cwd=directory,
            capture_output=True,
            text=True,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def printed(prescreen: Callable[..., subprocess.CompletedProcess[str]]) -> subprocess.CompletedProcess[str]:
    return prescreen("--model", "model.keras", *GRID, "--policy", "policy.yaml", "--output", "kept.json")


@pytest.fixture(scope="module")
def kept(printed: subprocess.CompletedProcess[str], directory: Path) -> Prescreen:
    assert printed.returncode == 0, printed.stderr
    return Prescreen.model_validate_json((directory / "kept.json").read_bytes())


def test_every_leaf_is_predicted_in_every_configuration_that_changes_it_with_one_file_a_structure(kept: Prescreen):
    assert kept.grid == {"sparsity": [0.5, 0.8], "clusters": [4, 5000]}
    assert kept.files == 1 + 2 + 2 + 4
    assert {each.leaf for each in kept.predictions} == {leaf.name for leaf in TREE.leaves()}
    assert len(kept.predictions) == 2 * kept.files
    made = [each for each in kept.predictions if not each.infeasible]
    assert len({each.sha256 for each in made}) == 1 + 2 + 1 + 2
    for each in made:
        assert each.contract.holds
        assert each.figures["packed_bytes"] < kept.baseline["packed_bytes"]
        assert each.figures["npu_latency_ms"] > 0
        assert each.npu_tool.startswith("ethos-u-vela")
    assert "tensorflow" in kept.versions


def test_sparser_and_fewer_is_smaller(kept: Prescreen):
    packed = {(each.leaf, *each.configuration.values()): each.figures.get("packed_bytes") for each in kept.predictions}
    assert packed["pqat", 0.8] < packed["pqat", 0.5] < packed["qat",]
    assert packed["pcqat", 0.5, 4] < packed["cqat", 4]


def test_a_configuration_that_cannot_be_made_says_why_and_ends_nothing(kept: Prescreen):
    infeasible = [each for each in kept.predictions if each.infeasible]
    assert {each.configuration["clusters"] for each in infeasible} == {5000}
    assert len(infeasible) == 2 + 4
    for each in infeasible:
        assert "no trainable layer has more than 5000 distinct weights" in each.infeasible
        assert (each.figures, each.missed) == ({}, [])


def test_what_cannot_meet_the_policy_is_told_with_the_predicted_figure(
    kept: Prescreen, printed: subprocess.CompletedProcess[str]
):
    ptq = next(each for each in kept.predictions if each.leaf == "ptq")
    reason = f"predicted 'packed_bytes' is {ptq.figures['packed_bytes']:,.0f} B; accepted is at most 100 B"
    assert ptq.missed == [reason]
    assert reason in printed.stdout
    assert "smallest leaf" in printed.stdout
    assert printed.stdout.rstrip().endswith("kept.json")


def test_json_is_all_that_is_printed_and_what_is_kept(
    prescreen: Callable[..., subprocess.CompletedProcess[str]], directory: Path
):
    done = prescreen("--model", "model.keras", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((directory / "prescreen.json").read_text())
    assert json.loads(done.stdout)["grid"] == {"sparsity": [0.5], "clusters": [16]}


def test_nothing_that_can_be_made_is_an_error_and_keeps_what_was_predicted_before(
    prescreen: Callable[..., subprocess.CompletedProcess[str]], directory: Path, kept: Prescreen
):
    before = (directory / "kept.json").read_bytes()
    (directory / "broken.keras").write_bytes(b"no model")
    done = prescreen("--model", "broken.keras", "--output", "kept.json")
    assert (done.returncode, done.stdout) == (1, "")
    assert "broken.keras" in done.stderr
    assert "Traceback" not in done.stderr
    assert (directory / "kept.json").read_bytes() == before


def test_a_policy_about_a_metric_that_the_task_does_not_have_is_refused(
    prescreen: Callable[..., subprocess.CompletedProcess[str]], directory: Path
):
    (directory / "auc.yaml").write_text("goals: [{figure: auc, threshold: 0.9, higher_is_better: true}]\n")
    done = prescreen("--model", "model.keras", "--policy", "auc.yaml", "--output", "auc.json")
    assert done.returncode == 1
    assert "'auc' is neither a figure that every leaf has nor a metric of the task" in done.stderr
    assert not (directory / "auc.json").exists()


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (["--grid", "sparsity=0.5,1"], ["'sparsity' is out of range", "--grid sparsity=1"]),
        (["--grid", "clusters=8,2"], ["'clusters' is out of range", "--grid clusters=2", "pruned_clustered"]),
        (["--param", "sparsity=1"], ["'sparsity' is out of range", "--param sparsity=1"]),
        (["--grid", "epochs=1,2"], ["'epochs' changes what is learned", "sparsity, clusters"]),
        (["--set", "pqatt.epochs=1"], ["unknown stage 'pqatt'"]),
        (["--policy", "nowhere.yaml"], ["no such policy file"]),
        (["--task", "no_such_module:TASK"], ["no module 'no_such_module'"]),
        (["--against", "nowhere"], ["no leaves/ in this directory", "--against nowhere"]),
        (["--output", "no/such/file.json"], ["no such directory"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_can_be_known_is_said_before_anything_starts(collabopt: Command, options: list[str], expected: list[str]):
    code, output, errors = collabopt("prescreen", "--example", "digits", *options)
    assert (code, output) == (1, "")
    for text in expected:
        assert text in errors
    assert os.listdir() == []


def test_a_file_that_is_no_prediction_is_not_overwritten(collabopt: Command):
    Path("notes.json").write_text("{}")
    code, _, errors = collabopt("prescreen", "--example", "digits", "--output", "notes.json")
    assert code == 1
    assert "no earlier prediction is in the way" in errors
    assert Path("notes.json").read_text() == "{}"


@pytest.mark.parametrize("arguments", [[], ["--example", "digits", "sparsity=0.5"]])
def test_usage_errors_end_with_2(collabopt: Command, arguments: list[str]):
    assert collabopt("prescreen", *arguments)[0] == 2
