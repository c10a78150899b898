"""Pods of one pipeline run against a server: many at once, again after a failure, with a cluster's credentials."""

import json
import os
import subprocess
import sys
import time

import mlflow
import pytest
import requests
import yaml
from mlflow import MlflowClient

from collabopt.components.engine.tracking import open_parent, stage_run

PODS = 8
PROGRAM = """
import sys, time
from pathlib import Path
from mlflow import MlflowClient
from collabopt.components.engine.tracking import stage_run
Path(sys.argv[2]).touch()
while not Path("go").exists():
    time.sleep(0.001)
with stage_run(sys.argv[1]) as run:
    run.log_params({"epochs": 2})
    for epoch in (1, 2):
        run.log_epoch(epoch, {"loss": 1 / epoch})
"""


HELD_UP = """
import json, sys, time
from mlflow.store.tracking.rest_store import RestStore
from collabopt.components.engine.tracking import open_parent

def late(method, seconds):
    def call(*args, **kwargs):
        time.sleep(seconds)
        return method(*args, **kwargs)
    return call

for name, seconds in json.loads(sys.argv[1]).items():
    setattr(RestStore, name, late(getattr(RestStore, name), seconds))
print("ready", flush=True)
time.sleep(float(sys.stdin.readline()))
print(open_parent().run_id)
"""


@pytest.mark.parametrize(
    "third",
    [
        pytest.param(None, id="two"),
        pytest.param((5.5, {"set_tag": 8}), id="a third that means to settle what its creator deletes meanwhile"),
    ],
)
def test_pods_agree_on_one_parent_where_the_server_takes_seconds_to_answer(served, patient, runs_of, third):
    """One's run appears when the other has looked for it already, and the other's choice when the one has looked."""
    held_up = [(0, {"create_run": 4}), (0, {"set_tag": 8}), *([third] if third else [])]
    pipe = subprocess.PIPE
    pods = [
        subprocess.Popen([sys.executable, "-c", HELD_UP, json.dumps(delays)], stdin=pipe, stdout=pipe, text=True)
        for _, delays in held_up
    ]
    assert [pod.stdout.readline() for pod in pods] == ["ready\n"] * len(pods)
    for pod, (start, _) in zip(pods, held_up, strict=True):
        pod.stdin.write(f"{start}\n")
        pod.stdin.flush()
    found = {pod.communicate(timeout=300)[0].strip() for pod in pods}
    (parent,), _ = runs_of()
    assert found == {parent.info.run_id}


def test_eight_pods_that_start_at_the_same_moment_agree_on_one_parent(served, patient, runs_of, tmp_path):
    """In an experiment that does not exist yet either."""
    ready = [tmp_path / f"ready-{number}" for number in range(PODS)]
    pods = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, f"stage{number}", str(path)],
            stderr=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        for number, path in enumerate(ready)
    ]
    while not all(path.exists() for path in ready):
        assert all(pod.poll() is None for pod in pods)
        time.sleep(0.05)
    (tmp_path / "go").touch()
    for pod in pods:
        _, errors = pod.communicate(timeout=300)
        assert pod.returncode == 0, errors
        assert "warning" not in errors
    (parent,), children = runs_of()
    assert set(children) == {f"stage{number}" for number in range(PODS)}
    assert {child.data.tags["mlflow.parentRunId"] for child in children.values()} == {parent.info.run_id}
    assert {child.info.status for child in children.values()} == {"FINISHED"}
    assert all(len(served.get_metric_history(child.info.run_id, "loss")) == 2 for child in children.values())


def test_a_pod_that_is_tried_again_resumes_its_run_and_keeps_what_both_attempts_were_given(served, runs_of):
    with pytest.raises(ZeroDivisionError), stage_run("pqat") as first:
        first.log_params({"epochs": 3, "seed": 0})
        first.log_epoch(1, {"loss": 0.5})
        _ = 1 / 0
    assert served.get_run(first.run_id).info.status == "FAILED"
    with stage_run("pqat") as second:
        second.log_params({"epochs": 5, "seed": 0})
        second.log_epoch(1, {"loss": 0.25})
    _, children = runs_of()
    assert children["pqat"].info.run_id == first.run_id == second.run_id
    assert children["pqat"].info.status == "FINISHED"
    assert children["pqat"].data.params == {"pqat.epochs": "3", "pqat.epochs.attempt_2": "5", "pqat.seed": "0"}
    assert children["pqat"].data.metrics["loss"] == 0.25


@pytest.fixture
def kubeconfig(tmp_path, monkeypatch):
    """Credentials of a cluster as MLflow's provider finds them outside of a pod."""
    context = {"name": "c", "context": {"cluster": "c", "user": "u", "namespace": "team-a"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "contexts": [context],
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": "cluster-token"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    # Kubernetes' client reads KUBECONFIG when it is imported, which another test may have had it do.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))


@pytest.fixture(scope="module")
def server_with_workspaces(serve_empty_store):
    address = serve_empty_store("--enable-workspaces").address
    mlflow.set_tracking_uri(address)
    mlflow.create_workspace("team-a")
    mlflow.set_tracking_uri(None)
    return address


@pytest.mark.parametrize(
    ("auth", "workspace"), [("kubernetes", ""), ("kubernetes-namespaced", "team-a"), ("", "team-a")], ids=str
)
def test_authentication_and_workspace_that_kubeflow_injects_are_used(
    server_with_workspaces, pod, kubeconfig, monkeypatch, auth, workspace
):
    pod(server_with_workspaces)
    for name, value in (("MLFLOW_TRACKING_AUTH", auth), ("MLFLOW_WORKSPACE", workspace)):
        if value:
            monkeypatch.setenv(name, value)
    send, headers = requests.Session.send, []
    monkeypatch.setattr(
        requests.Session,
        "send",
        lambda self, request, **more: (headers.append(request.headers), send(self, request, **more))[1],
    )
    client = MlflowClient(tracking_uri=server_with_workspaces)
    experiment = client.create_experiment(f"KFP-{os.environ['COLLABOPT_PIPELINE_RUN_ID']}")
    root = client.create_run(experiment, tags={"kfp.pipeline_run_id": os.environ["COLLABOPT_PIPELINE_RUN_ID"]})
    task = client.create_run(experiment, run_name="task", tags={"mlflow.parentRunId": root.info.run_id})
    monkeypatch.setenv("MLFLOW_RUN_ID", task.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    headers.clear()
    with stage_run("ptq") as run:
        run.log_params({"seed": 0})
        run.log_metrics({"accuracy": 0.5})
    assert open_parent().run_id == root.info.run_id
    assert {sent.get("Authorization") for sent in headers} == {"Bearer cluster-token" if auth else None}
    assert {sent.get("X-MLFLOW-WORKSPACE") for sent in headers} == {workspace or None}
    logged = client.get_run(task.info.run_id)
    assert (logged.info.run_name, logged.info.status) == ("task", "FINISHED")
    assert (logged.data.params, logged.data.metrics) == ({"ptq.seed": "0"}, {"accuracy": 0.5})
