"""A pipeline that runs again over kfp.local's cache: which stages run, and what MLflow shows of those that did not."""

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from mlflow import MlflowClient

# Runs one pipeline several times, each time with other arguments, over one cache.
PROGRAM = """
import json, os, shutil, sys
from kfp import local
from collabopt.components.engine.stage_host import stage_host
from collabopt.pipelines import load_pipeline

local.init(
    local.SubprocessRunner(use_venv=False), pipeline_root="root", workspace_root="workspace",
    enable_caching=True, cache_root="cache",
)
pipeline = load_pipeline("pruning")
with stage_host():
    for name, run in json.loads(sys.argv[1]).items():
        for source, target in run.pop("copy", {}).items():
            shutil.copy(source, target)
        os.environ.update(COLLABOPT_PIPELINE_RUN_ID=name, COLLABOPT_PROGRESS_FILE=os.path.abspath(f"{name}.jsonl"))
        pipeline(**run)
"""
ARGUMENTS = {"epochs": 1, "qat_epochs": 1, "clusters": 4, "policy": "goals: []"}
ALWAYS = {"configure", "gate"}
BELOW_BASELINE = {"pruned", "pruned_ptq", "pqat", "pruned_clustered", "pruned_clustered_ptq", "pcqat"}


def write_sources(directory):
    """Two data sets and a model that fits both."""
    import tf_keras

    for seed in (0, 1):
        random = np.random.default_rng(seed)
        labels = random.integers(0, 3, 160)
        features = random.uniform(0, 0.3, (160, 8, 8, 1)).astype(np.float32)
        features[np.arange(160), :, labels * 2, 0] += 0.7
        np.savez(directory / f"data-{seed}.npz", x=features, y=labels)
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    ).save(directory / "model.keras")
    shutil.copy(directory / "data-0.npz", directory / "data.npz")


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Run -> the stages that ran in it; the directory."""
    directory = tmp_path_factory.mktemp("caching")
    write_sources(directory)
    arguments = {**ARGUMENTS, "model": str(directory / "model.keras"), "data": str(directory / "data.npz")}
    plan = {
        "first": arguments,
        "same": arguments,
        "leaf": {**arguments, "settings": {"pcqat": {"learning_rate": 0.0005}}},
        "clusters": {**arguments, "clusters": 5},
        "sparsity": {**arguments, "sparsity": 0.75},
        "data": {**arguments, "copy": {"data-1.npz": "data.npz"}},
        "back": {**arguments, "copy": {"data-0.npz": "data.npz"}},
    }
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = {**kept, "MLFLOW_TRACKING_URI": f"sqlite:///{directory}/mlflow.db", "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(plan)],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return {name: _started(directory / f"{name}.jsonl") for name in plan}, directory


def _started(path):
    events = [json.loads(line) for line in path.read_text().splitlines()]
    return {event["stage"] for event in events if event["event"] == "started"}


@pytest.mark.parametrize(
    ("run", "stages"),
    [
        ("first", {"dataset", "baseline", "prescreen", *BELOW_BASELINE}),
        ("same", set()),
        ("leaf", {"prescreen", "pcqat"}),
        ("clusters", {"prescreen", "pruned_clustered", "pruned_clustered_ptq", "pcqat"}),
        ("sparsity", {"prescreen", *BELOW_BASELINE}),
        ("data", {"dataset", "baseline", "prescreen", *BELOW_BASELINE}),
        ("back", set()),
    ],
)
def test_exactly_those_stages_run_again_that_something_has_changed_for(runs, run, stages):
    assert runs[0][run] == stages | ALWAYS


@pytest.fixture(scope="module")
def compared(runs):
    """Run of the pipeline -> stage -> its MLflow run below the parent; also those of stages that were cached."""
    client = MlflowClient(tracking_uri=f"sqlite:///{runs[1]}/mlflow.db")
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    found = {}
    for name in runs[0]:
        (parent,) = client.search_runs([experiment], f"tags.`kfp.pipeline_run_id` = '{name}'")
        children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        found[name] = {child.info.run_name: child for child in children}
        assert len(found[name]) == len(children)
    return found


def test_every_run_of_the_pipeline_shows_every_stage_in_mlflow(runs, compared):
    for name, children in compared.items():
        assert set(children) >= {"baseline", *BELOW_BASELINE, "deployment_gate"}, name
        assert {child.info.status for child in children.values()} == {"FINISHED"}, name
        cached = {stage for stage, child in children.items() if "collabopt.cached_from" in child.data.tags}
        assert cached == {"baseline", *BELOW_BASELINE} - runs[0][name], name


def test_a_cached_stage_shows_what_its_own_run_showed(compared):
    for stage in ("baseline", *BELOW_BASELINE):
        own, cached = compared["first"][stage], compared["same"][stage]
        assert cached.data.tags["collabopt.cached_from"] == own.info.run_id
        assert cached.data.params.items() <= own.data.params.items()
        assert cached.data.params[f"{stage}.seed"] == "0"
    for leaf in ("pruned_ptq", "pqat", "pruned_clustered_ptq", "pcqat"):
        assert compared["same"][leaf].data.metrics == compared["first"][leaf].data.metrics
        assert compared["same"][leaf].data.params == compared["first"][leaf].data.params
