"""`collabopt search` on a small model: killed, gone on with, extended, and what it refuses."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from mlflow import MlflowClient

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.search.records import SearchSummary
from collabopt.pipelines.search_plan import plan_search

COLLABOPT = Path(sys.executable).parent / "collabopt"
MAKE_MODEL = """
import tf_keras
from tf_keras import layers
tf_keras.utils.set_random_seed(0)
image = layers.Input((8, 8, 1))
tensor = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
tensor = layers.Dense(3, activation="softmax", name="dense")(layers.Flatten()(tensor))
tf_keras.Model(image, tensor).save("model.keras")
"""
SPACE = "clusters: [4, 6]\ncqat.learning_rate: [0.0001, 0.001]\n"
POLICY = "goals: []\npriority: [packed_bytes, metric]\n"
SEARCH = [
    *("search", "--model", "model.keras", "--data", "data.npz", "--pipeline", "clustering", "--space", "space.yaml"),
    *("--policy", "policy.yaml", "--param", "epochs=1", "--param", "qat_epochs=2"),
]
WITHOUT_POLICY = [
    *("search", "--model", "model.keras", "--data", "data.npz", "--pipeline", "clustering", "--space", "space.yaml"),
    *("--param", "epochs=1", "--param", "qat_epochs=1", "--trials", "2"),
]
LIMITED = ["--trials", "9", "--epochs", "12"]


def collabopt(directory: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COLLABOPT, *arguments], cwd=directory, env=environment(), capture_output=True, text=True, check=False
    )


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}


def files(directory: Path) -> dict[str, bytes]:
    found = (path for path in directory.rglob("*") if path.is_file())
    return {str(path.relative_to(directory)): path.read_bytes() for path in found}


def finished_stages(directory: Path) -> list[str]:
    """Name of every stage of the tree that has run to its end, once for each time that it has."""
    names = []
    for ended in (directory / "collabopt-output/.search/root").glob("*/*/executor_output.json"):
        for record in (*ended.parent.glob("model/report.json"), *ended.parent.glob("model/stage.json")):
            step = json.loads(record.read_text())["lineage"][-1]
            if step["stage"] != "baseline":
                names.append(f"{step['stage']}@{step['trial']}")
    return sorted(names)


def runs_in(directory):
    """All MLflow runs of a search."""
    client = MlflowClient(f"sqlite:///{directory / 'mlflow.db'}")
    (experiment,) = [each for each in client.search_experiments() if each.name == "collabopt"]
    return client.search_runs([experiment.experiment_id])


@pytest.fixture(scope="module")
def prepared(tmp_path_factory, empty_store):
    directory = tmp_path_factory.mktemp("search")
    subprocess.run([sys.executable, "-c", MAKE_MODEL], cwd=directory, check=True, capture_output=True)
    random = np.random.default_rng(0)
    np.savez(directory / "data.npz", x=random.random((200, 8, 8, 1), np.float32), y=random.integers(0, 3, 200))
    (directory / "space.yaml").write_text(SPACE)
    (directory / "policy.yaml").write_text(POLICY)
    shutil.copy(empty_store, directory / "mlflow.db")
    return directory


@pytest.fixture(scope="module")
def killed(prepared):
    """Directory of a search that was killed, for good and without a word, while it trained a stage of its last wave."""
    log = prepared / "killed.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [COLLABOPT, *SEARCH, *LIMITED], cwd=prepared, env=environment(), stdout=out, stderr=out
        )
    deadline = time.monotonic() + 300
    while "cqat@2 " not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    return prepared


@pytest.fixture(scope="module")
def gone_on(killed):
    before = finished_stages(killed)
    run = collabopt(killed, *SEARCH, *LIMITED, "--json")
    assert run.returncode == 0, run.stderr
    return before, SearchSummary.model_validate_json(run.stdout), run


@pytest.fixture(scope="module")
def extended(killed, gone_on):
    run = collabopt(killed, *SEARCH, "--trials", "9", "--epochs", "20")
    assert run.returncode == 0, run.stderr
    summary = SearchSummary.model_validate_json((killed / "collabopt-output/search.json").read_text())
    return summary, run


@pytest.fixture(scope="module")
def interrupted(prepared, tmp_path_factory, empty_store):
    """A search without a policy, interrupted in its first wave: directory, and its state."""
    directory = tmp_path_factory.mktemp("interrupted")
    for name in ("model.keras", "data.npz", "space.yaml"):
        shutil.copy(prepared / name, directory)
    shutil.copy(empty_store, directory / "mlflow.db")
    log = directory / "interrupted.log"
    with log.open("w") as out:
        process = subprocess.Popen(
            [COLLABOPT, *WITHOUT_POLICY], cwd=directory, env=environment(), stdout=out, stderr=out
        )
    deadline = time.monotonic() + 300
    while "clustered@0 " not in log.read_text():
        assert process.poll() is None and time.monotonic() < deadline, log.read_text()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait() == 130 and "interrupted; the same command goes on" in log.read_text()
    return directory, json.loads((directory / "collabopt-output/.search/state.json").read_text())


def test_an_interruption_costs_its_time_and_ends_the_run_in_mlflow(interrupted):
    directory, state = interrupted
    assert state["minutes"] > 0
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    (parent,) = client.search_runs(["1"], f"tags.`kfp.pipeline_run_id` = '{state['run_id']}'")
    assert parent.info.status == "FAILED"


def test_without_a_policy_the_winner_of_the_default_configuration_is_to_be_beaten(interrupted):
    directory, state = interrupted
    run = collabopt(directory, *WITHOUT_POLICY, "--json")
    assert run.returncode == 0, run.stderr
    summary = SearchSummary.model_validate_json(run.stdout)
    leaves = directory / "collabopt-output/leaves"
    default = [json.loads((leaves / f"{name}@0/report.json").read_text()) for name in ("cqat", "clustered_ptq")]
    policy = yaml.safe_load((directory / "collabopt-output/search-policy.yaml").read_text())
    bounds = {goal["figure"]: goal["threshold"] for goal in policy["goals"]}
    found = [(report["deployed"]["packed_bytes"], report["metrics"]["accuracy"]) for report in default]
    assert (bounds["packed_bytes"], pytest.approx(bounds["metric"])) in found
    assert len(summary.trials) == 2 and summary.used.minutes > state["minutes"]


def test_a_killed_search_goes_on_and_trains_nothing_twice(killed, gone_on):
    before, summary, _ = gone_on
    assert "clustered@0" in before and "cqat@2" not in before
    after = finished_stages(killed)
    assert len(after) == len(set(after)) and set(before) <= set(after)
    # Two stages for the default configuration, then two clustered ones and three quantized; the fourth would be 13.
    assert summary.used.epochs == 11 and summary.used.trials == 4
    assert summary.ended_by == "12 epochs: the next trial would take more"


def test_the_budget_may_grow_until_the_space_is_exhausted_and_shared_stages_are_trained_once(killed, extended):
    summary, _ = extended
    assert summary.ended_by == "the space is exhausted"
    # The default configuration, 16 clusters, lies outside the space of four.
    assert [trial.configuration["clusters"] for trial in summary.trials].count(16) == 1 and len(summary.trials) == 5
    assert (summary.trainings, summary.trainings_without_sharing) == (3 + 5, 5 * 2)
    stages = finished_stages(killed)
    assert len(stages) == len(set(stages)) == 3 + 3 + 5
    assert summary.used.epochs == 3 * 1 + 5 * 2


def test_the_result_looks_like_that_of_a_run_and_the_gate_and_inspect_take_it(killed, extended):
    summary, run = extended
    output = killed / "collabopt-output"
    leaves = {path.name for path in (output / "leaves").iterdir()}
    assert leaves == {leaf.leaf for trial in summary.trials for leaf in trial.leaves.values()}
    assert {"decision.json", "report.html", "model_card.md", "logs", "search.json"} <= set(os.listdir(output))
    compared = json.loads((output / "prescreen.json").read_text())["comparisons"]
    assert {each["leaf"] for each in compared} == leaves
    decision = json.loads((output / "decision.json").read_text())
    assert decision["winner"] == summary.winner and f"winner: {summary.winner}" in run.stdout
    report = json.loads((output / "leaves" / summary.winner / "report.json").read_text())
    assert report["lineage"][-1]["stage"] == summary.winner.partition("@")[0]
    again = collabopt(killed, "gate", "--dry-run", "--policy", "collabopt-output/search-policy.yaml")
    assert again.returncode == 0 and f"winner: {summary.winner}" in again.stdout
    assert collabopt(killed, "inspect", f"collabopt-output/leaves/{summary.winner}/model.tflite").returncode == 0
    champion = json.loads((killed / "collabopt-releases/collabopt/champion.json").read_text())
    assert champion["champion"] == decision["winner_sha256"]


def test_the_front_is_what_nothing_dominates(extended):
    summary, run = extended
    assert summary.objectives == ["accuracy", "packed_bytes"]
    points = [(leaf.figures["accuracy"], -leaf.figures["packed_bytes"]) for leaf in summary.front]
    assert not any(a != b and a[0] >= b[0] and a[1] >= b[1] for a in points for b in points)
    assert summary.winner in {leaf.leaf for leaf in summary.front}
    assert "trainings: 8 run, 10 without sharing (0.80)" in run.stdout


def test_every_trial_is_a_child_run_and_so_is_every_stage_once(killed, extended):
    summary, _ = extended
    runs = runs_in(killed)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    assert len(children) == len(runs) - 1
    assert parent.info.status == "FINISHED" and parent.data.tags["winner"] == summary.winner
    trials = {int(run.data.tags["collabopt.trial"]): run for run in children if "collabopt.trial" in run.data.tags}
    assert sorted(trials) == [0, 1, 2, 3, 4]
    for trial in summary.trials:
        run = trials[trial.number]
        assert {name: float(run.data.params[name]) for name in trial.configuration} == trial.configuration
        best = run.data.tags["collabopt.best_leaf"]
        assert best in {leaf.leaf for leaf in trial.leaves.values()}
        report = json.loads((killed / "collabopt-output/leaves" / best / "report.json").read_text())
        assert run.data.metrics["packed_bytes"] == report["deployed"]["packed_bytes"]
        assert "validation_accuracy" in run.data.metrics and "collabopt.not_trained" not in run.data.tags
    stages = [run.data.tags["collabopt.stage"] for run in children if "collabopt.stage" in run.data.tags]
    assert sorted(name for name in stages if "@" in name) == finished_stages(killed)
    leaves = [run for run in children if run.data.tags.get("collabopt.leaf") == "true"]
    assert len(leaves) == 3 + 5
    assert all({"clusters", "cqat.learning_rate"} <= set(run.data.params) for run in leaves)
    assert all(run.data.metrics["packed_bytes"] > 0 for run in leaves)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda directory: (directory / "space.yaml").write_text("clusters: [4, 8]\n"), "space: "),
        (lambda directory: (directory / "policy.yaml").write_text("goals: []\npriority: [metric]\n"), "policy: "),
        (lambda directory: (directory / "data.npz").write_bytes((directory / "other.npz").read_bytes()), "of the data"),
    ],
)
def test_a_search_that_asks_for_something_else_is_refused_and_nothing_is_overwritten(
    killed, extended, tmp_path, change, said
):
    for name in ("model.keras", "data.npz", "space.yaml", "policy.yaml"):
        shutil.copy(killed / name, tmp_path / name)
    shutil.copytree(killed / "collabopt-output", tmp_path / "collabopt-output")
    state = tmp_path / "collabopt-output/.search/state.json"
    state.write_text(state.read_text().replace(str(killed), str(tmp_path)))
    np.savez(tmp_path / "other.npz", x=np.zeros((200, 8, 8, 1), np.float32), y=np.arange(200) % 3)
    change(tmp_path)
    before = files(tmp_path)
    run = collabopt(tmp_path, *SEARCH, "--trials", "9", "--epochs", "20")
    assert run.returncode == 1 and "another search was begun in this output directory" in run.stderr
    assert said in run.stderr and "Traceback" not in run.stderr
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("space", "policy", "asked", "said"),
    [
        ("", POLICY, {}, "the space is empty"),
        ("sparsity: [0.5]", POLICY, {}, "no stage listens to 'sparsity'"),
        ("clusters: [4, 1]", POLICY, {}, "clusters=1"),
        ("clusters: [4]", POLICY, {"parameters": ["clusters=5"]}, "has a value already"),
        (SPACE, "goals: [{figure: f1, max_drop: 0.1, higher_is_better: true}]", {}, "nor a metric of the task"),
        (SPACE, "goals: [{figure: metric}]", {}, "exactly one of"),
        (SPACE, POLICY, {"epochs": 5}, "too small for one trial"),
        (SPACE, POLICY, {"trials": 0}, "too small for one trial"),
        (SPACE, POLICY, {"minutes": 0.0}, "too small for one trial"),
        (SPACE, POLICY, {"minutes": float("inf")}, "is no limit"),
        (SPACE, POLICY, {"pipeline": "staged"}, "grows all its stages"),
        (SPACE, POLICY, {"model": "none.keras"}, "no such file"),
    ],
)
def test_bad_input_is_an_error_and_nothing_is_written(prepared, tmp_path, monkeypatch, space, policy, asked, said):
    for name in ("model.keras", "data.npz"):
        shutil.copy(prepared / name, tmp_path / name)
    (tmp_path / "space.yaml").write_text(space)
    (tmp_path / "policy.yaml").write_text(policy)
    monkeypatch.chdir(tmp_path)
    before = files(tmp_path)
    arguments = {"model": "model.keras", "data": "data.npz", "pipeline": "clustering", **asked}
    with pytest.raises(CollaboptError, match=re.escape(said)):
        plan_search(space=Path("space.yaml"), policy=Path("policy.yaml"), output=tmp_path / "out", **arguments)
    assert files(tmp_path) == before


@pytest.fixture
def asked(prepared, tmp_path, empty_store):
    """Puts what a search takes into an empty directory."""

    def put(space: str, policy: str = POLICY) -> None:
        for name in ("model.keras", "data.npz"):
            shutil.copy(prepared / name, tmp_path / name)
        shutil.copy(empty_store, tmp_path / "mlflow.db")
        (tmp_path / "space.yaml").write_text(space)
        (tmp_path / "policy.yaml").write_text(policy)

    return put


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ('clustered.layers={"blok*": {"number_of_clusters": 8}}', "'blok*'"),
        ("clustered.number_of_clusters=4000", "no leaf can be made in any of these configurations: no trainable layer"),
    ],
)
def test_a_default_configuration_that_cannot_be_made_is_an_error_before_anything_is_trained(
    asked, tmp_path, setting, said
):
    asked("cqat.learning_rate: [0.0001, 0.001]\n")
    run = collabopt(tmp_path, *SEARCH, "--trials", "2", "--set", setting)
    assert run.returncode == 1 and said in run.stderr and "Traceback" not in run.stderr
    assert "clustered@0 " not in run.stderr
    # What was asked is forgotten, so that it may be corrected.
    assert not (tmp_path / "collabopt-output/.search").exists()


def test_a_default_configuration_that_cannot_meet_the_policy_is_not_trained(asked, tmp_path):
    bound = "goals: [{figure: packed_bytes, threshold: 10}]\npriority: [metric]\n"
    asked("clusters: [2]\n", bound)
    run = collabopt(tmp_path, *SEARCH, "--trials", "2", "--json")
    summary = SearchSummary.model_validate_json(run.stdout)
    assert summary.trainings == 0 and summary.winner is None and summary.used.trials == 2
    assert all("packed_bytes" in leaf.left_out for trial in summary.trials for leaf in trial.leaves.values())
    trials = [run for run in runs_in(tmp_path) if "collabopt.trial" in run.data.tags]
    assert [run.data.tags["collabopt.best_leaf"] for run in trials] == ["none", "none"]
    for run in trials:
        reasons = dict(line.split(": ", 1) for line in run.data.tags["collabopt.not_trained"].splitlines())
        assert {"clustered_ptq", "cqat"} <= set(reasons)
        assert "accepted is at most 10 B" in reasons["clustered_ptq"]
        assert run.data.metrics["packed_bytes"] > 10
    (tmp_path / "lax.yaml").write_text(bound.replace("10", "1000000"))
    collabopt(tmp_path, "gate", "--policy", "lax.yaml")
    verdicts = json.loads((tmp_path / "collabopt-output/decision.json").read_text())["verdicts"]
    assert len(verdicts) == 4 and all("under this one it might qualify" in str(verdict) for verdict in verdicts)


def test_plans_of_single_layers_are_searched_over_by_name(asked, tmp_path):
    asked("plan: {coarse: {cluster: {dense: {number_of_clusters: 4}}}}\n")
    run = collabopt(tmp_path, *SEARCH, "--trials", "2", "--json")
    assert run.returncode == 0, run.stderr
    trials = {str(trial.configuration["plan"]): trial for trial in SearchSummary.model_validate_json(run.stdout).trials}
    assert set(trials) == {"none", "coarse"}
    leaf = trials["coarse"].leaves["clustered_ptq"].leaf
    report = json.loads((tmp_path / f"collabopt-output/leaves/{leaf}/report.json").read_text())
    (clustered,) = [step for step in report["lineage"] if step["stage"] == "clustered"]
    assert clustered["settings"]["layers"] == {"dense": {"number_of_clusters": 4}}


def test_a_plan_that_matches_no_layer_is_an_error_before_anything_is_trained(asked, tmp_path):
    plans = "{coarse: {cluster: {dense: {number_of_clusters: 4}}}, lost: {cluster: {'blok*': exclude}}}"
    asked(f"clusters: [4]\nplan: {plans}\n")
    run = collabopt(tmp_path, *SEARCH, "--trials", "3")
    assert run.returncode == 1 and "Traceback" not in run.stderr
    assert "no layer that can be clustered matches 'blok*'" in run.stderr and "space.yaml, line 2" in run.stderr
    assert "clustered@0 " not in run.stderr and not (tmp_path / "collabopt-output/.search").exists()


def test_what_was_trained_before_a_stage_failed_is_kept(asked, tmp_path):
    asked("clusters: [4, 6]\n")
    (tmp_path / "labels_alone.py").write_text(
        "import dataclasses\nfrom collabopt.components.engine.training import classification\n"
        "TASK = dataclasses.replace(classification.TASK, distillation=None)\n"
    )
    run = collabopt(tmp_path, *SEARCH, "--task", "labels_alone:TASK", "--set", "cqat.distillation_weight=0.4")
    assert run.returncode == 1 and "does not say how a model learns from another" in run.stderr
    assert "clustered@0" in finished_stages(tmp_path)
