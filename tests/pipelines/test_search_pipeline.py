"""The pipeline `search`, run by kfp.local: the default configuration, then a wave of two trials."""

import json
import os
import subprocess
import sys

import numpy as np
import optuna
import pytest
import yaml
from mlflow import MlflowClient

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.stages import propose_stage
from collabopt.pipelines import parameters_of
from collabopt.pipelines.cluster import SearchWaves, read_cluster
from collabopt.pipelines.compilation import compile_pipeline
from collabopt.pipelines.grow import branch_of
from collabopt.pipelines.tree import CLUSTERING, ROOT, TREE

PROGRAM = """
import json, sys
import tf_keras
from kfp import local
from collabopt.components.engine.stage_host import stage_host
from collabopt.pipelines.cluster import SearchWaves
from collabopt.pipelines.search import search_pipeline
from collabopt.pipelines.tree import CLUSTERING

tf_keras.utils.set_random_seed(0)
layers = tf_keras.layers
image = layers.Input((8, 8, 1))
tensor = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
tensor = layers.Dense(3, activation="softmax", name="dense")(layers.Flatten()(tensor))
tf_keras.Model(image, tensor).save("model.keras")
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root", workspace_root="workspace")
pipeline = search_pipeline(SearchWaves(waves=1, trials_at_once=2), tree=CLUSTERING)
with stage_host():
    pipeline(**json.loads(sys.argv[1]))
"""
ARGUMENTS = {
    "space": "clusters: [4, 6]\ncqat.learning_rate: [0.0001, 0.001]\n",
    "policy": "goals: []\npriority: [packed_bytes, metric]\n",
    "epochs": 1,
    "qat_epochs": 1,
}
RUN = "9f1b6a52-search"


@pytest.fixture(scope="module")
def searched(tmp_path_factory, empty_store):
    """Directory of a search that has ended, and what its stages have reported."""
    directory = tmp_path_factory.mktemp("search-pipeline")
    random = np.random.default_rng(0)
    np.savez(directory / "data.npz", x=random.random((200, 8, 8, 1), np.float32), y=random.integers(0, 3, 200))
    (directory / "mlflow.db").write_bytes(empty_store.read_bytes())
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    arguments = {**ARGUMENTS, "model": str(directory / "model.keras"), "data": str(directory / "data.npz")}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(arguments)],
        cwd=directory,
        env={
            **kept,
            "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db",
            "TF_CPP_MIN_LOG_LEVEL": "2",
            "COLLABOPT_PIPELINE_RUN_ID": RUN,
            "COLLABOPT_PROGRESS_FILE": str(directory / "progress.jsonl"),
        },
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-3000:]
    return directory, [json.loads(line) for line in (directory / "progress.jsonl").read_text().splitlines()]


def test_a_wave_trains_what_no_earlier_trial_has_and_nothing_of_it_twice(searched):
    _, events = searched
    started = [event["stage"] for event in events if event["event"] == "started" and "@" in event["stage"]]
    new = sorted(name for name in started if not name.endswith("@0"))
    # Both numbers of clusters, not one of them with both learning rates: the two would train the same `clustered`.
    assert new == sorted(f"{stage.name}@{trial}" for stage in CLUSTERING for trial in (1, 2))
    assert {name for name in started if name.endswith("@0")} == {f"{stage.name}@0" for stage in CLUSTERING}


def test_the_gate_decides_over_the_leaves_of_all_trials(searched):
    directory, _ = searched
    (decision,) = directory.glob("root/*/deployment-gate/decision/decision.json")
    decided = json.loads(decision.read_text())
    leaves = {f"{leaf.name}@{trial}" for leaf in CLUSTERING.leaves() for trial in (0, 1, 2)}
    assert {verdict["leaf"] for verdict in decided["verdicts"]} == leaves
    assert decided["winner"]
    compared = json.loads((decision.parent / "prescreen.json").read_text())["comparisons"]
    assert {each["leaf"] for each in compared} == leaves


def test_mlflow_shows_every_trial_below_the_run(searched):
    directory, _ = searched
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    (experiment,) = [each for each in client.search_experiments() if each.name == "collabopt"]
    runs = client.search_runs([experiment.experiment_id])
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    trials = {int(run.data.tags["collabopt.trial"]): run for run in runs if "collabopt.trial" in run.data.tags}
    assert sorted(trials) == [0, 1, 2]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in trials.values())
    asked = [(float(run.data.params["clusters"]), run.data.params["cqat.learning_rate"]) for run in trials.values()]
    assert len(set(asked)) == 3 and all(run.data.metrics["packed_bytes"] > 0 for run in trials.values())
    assert parent.data.params["budget.trials"] == "12" and "clusters" in parent.data.params["space"]
    assert parent.info.status == "FINISHED" and ROOT in {run.info.run_name for run in runs}


def test_it_says_what_it_has_cost_and_what_sharing_has_saved(searched):
    directory, _ = searched
    accounts = [
        artifact["metadata"]
        for path in directory.glob("root/*/propose-trials*/executor_output.json")
        for artifact in json.loads(path.read_text())["artifacts"]["search"]["artifacts"]
    ]
    last = max((each for each in accounts if "trials" in each), key=lambda each: int(each["trials"]))
    assert int(last["trials"]) == 3 and 0 < int(last["trainings"]) <= int(last["trainings_without_sharing"]) == 3 * 2
    assert int(last["epochs"]) >= int(last["trainings"]) and float(last["minutes"]) > 0


@pytest.fixture(scope="module")
def host():
    """Other tests have computed in this process, which may not predict then."""
    with stage_host():
        yield


@pytest.fixture
def propose(searched, host, tmp_path, monkeypatch):
    """Proposes once more after the default configuration of the search that has ended; returns the wave."""
    directory, _ = searched
    (root,) = directory.glob("root/*")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{directory}/mlflow.db")
    leaves = [str(path.parent) for path in root.glob("for-loop-1-iteration-0/*/model/report.json")]

    def call(second: bool, **changed):
        given = {
            "baseline": str(root / "import-model/model"),
            "dataset": str(root / "load-dataset/dataset"),
            "before": "begun" if second else "",
            "leaves": leaves if second else [],
            "output": "next" if second else "begun",
            "stages": {stage.name: branch_of(stage) for stage in reversed(list(CLUSTERING))},
            "space": ARGUMENTS["space"],
            "policy": ARGUMENTS["policy"],
            "parameters": {**parameters_of("search"), "epochs": 1.0, "qat_epochs": 1.0},
            "settings": {},
            "budget_trials": 12,
            "budget_epochs": 0,
            "budget_minutes": 0.0,
            "size": 2,
        }
        return json.loads(propose_stage(**{**given, **changed}).values["trials"])

    return call


@pytest.mark.parametrize("spent", [{"budget_trials": 1}, {"budget_minutes": 1e-6}])
def test_a_wave_after_the_end_is_the_default_configuration_again(propose, spent):
    first = propose(False, **spent)
    assert propose(True, **spent) == first
    assert first[0]["cqat_stage"] == "cqat@0" and first[0]["cqat_skip"] == ""


def test_what_cannot_meet_the_policy_is_proposed_with_its_reason(propose):
    policy = "goals: [{figure: packed_bytes, threshold: 10}]\n"
    for trial in (*propose(False, policy=policy), *propose(True, policy=policy)):
        assert "packed_bytes" in trial["cqat_skip"] and "packed_bytes" in trial["clustered_ptq_skip"]
        assert trial["clustered_skip"].startswith("no leaf below it can meet the policy")


def test_where_predictions_are_only_reported_all_that_can_be_made_is_trained(propose):
    changed = {
        "policy": "goals: [{figure: packed_bytes, threshold: 10}]\n",
        "parameters": {**parameters_of("search"), "epochs": 1.0, "qat_epochs": 1.0, "prescreen": "report"},
    }
    propose(False, **changed)
    for trial in propose(True, **changed):
        assert not any(reason for name, reason in trial.items() if name.endswith("_skip"))


def test_a_policy_about_another_npu_is_searched_by_that_ones_figures(propose):
    policy = "accelerator: ethos-u65-256\ngoals: [{figure: npu_latency_ms, threshold: 1000}]\npriority: [metric]\n"
    with_the_default = {"policy": policy, "space": "clusters: [4, 16]\n"}
    propose(False, **with_the_default)
    propose(True, **with_the_default)
    default = optuna.load_study(study_name="search", storage="sqlite:///next/study.db").trials[0]
    assert len(default.values) == 2 and 0 < default.values[1] < 1000


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"space": "cluster: [4]"}, "did you mean 'clusters'"),
        ({"space": "clusters: []"}, "has no value"),
        ({"budget_epochs": 1}, "too small for one trial"),
        ({"budget_minutes": -1.0}, "too small for one trial"),
        ({"policy": "goals: [{figure: f1, max_drop: 0.1, higher_is_better: true}]"}, "nor a metric of the task"),
    ],
)
def test_bad_input_ends_the_search_before_anything_is_trained(propose, changed, expected):
    with pytest.raises(CollaboptError, match=expected):
        propose(False, **changed)


@pytest.mark.parametrize("spread", [SearchWaves(), SearchWaves(waves=2, trials_at_once=5)])
def test_kubeflows_cache_knows_a_stage_in_every_wave(tmp_path, spread):
    """Its key is container, values and what the inputs were made by; see `test_caching`."""
    file = tmp_path / "search.yaml"
    given = [f"search.waves={spread.waves}", f"search.trials_at_once={spread.trials_at_once}"]
    compile_pipeline("search", read_cluster(None, given), file)
    spec = next(yaml.load_all(file.read_text(), yaml.CSafeLoader))
    waves = [name for name in spec["root"]["dag"]["tasks"] if name.startswith("for-loop")]
    assert len(waves) == 1 + spread.waves
    keys = [_keys_in(spec, wave, spread.trials_at_once) for wave in waves]
    assert set(keys[0]) == {stage.name for stage in TREE} and all(each == keys[0] for each in keys)


def _keys_in(spec, wave, at_once):
    task = spec["root"]["dag"]["tasks"][wave]
    assert task["iteratorPolicy"]["parallelismLimit"] == at_once
    keys = {}
    for inner in spec["components"][task["componentRef"]["name"]]["dag"]["tasks"].values():
        component = spec["components"][inner["componentRef"]["name"]]
        assert inner["cachingOptions"]["enableCache"]
        container = spec["deploymentSpec"]["executors"][component["executorLabel"]]["container"]
        given = inner["inputs"]["parameters"]
        values = {name: given[name].get("parameterExpressionSelector", given[name]) for name in sorted(given)}
        keys[inner["taskInfo"]["name"]] = (container, values)
    return keys
