"""A real MLflow server, seen from a pod of a pipeline run."""

import uuid

import pytest
from mlflow import MlflowClient

from collabopt.components.engine.tracking.store import experiment_id

PATIENCE = ("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR")
VARIABLES = ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_WORKSPACE", "MLFLOW_TRACKING_AUTH")


@pytest.fixture
def pod(monkeypatch, tmp_path):
    """Puts this process into the pod of a pipeline run of its own, in an experiment of its own; gives the run's id."""

    def enter(address):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        pipeline_run = uuid.uuid4().hex
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", f"experiment-{pipeline_run}")
        monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", pipeline_run)
        monkeypatch.setenv("COLLABOPT_PIPELINE_NAME", "exhaustive-1")
        for name in PATIENCE:
            monkeypatch.setenv(name, "0")
        return pipeline_run

    return enter


@pytest.fixture
def patient(served, monkeypatch):
    """Gives MLflow's client its patience back: a server of many processes at once may answer 500 in between."""
    for name in PATIENCE:
        monkeypatch.delenv(name)


@pytest.fixture
def served(mlflow_server, pod):
    """A client of the server, as the pod sees it."""
    pod(mlflow_server)
    return MlflowClient(tracking_uri=mlflow_server)


@pytest.fixture
def runs_of(served):
    """Parents and children of the pod's experiment; the children by name, of which there must be one each."""

    def read():
        runs = served.search_runs([experiment_id(served)])
        parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
        children = [run for run in runs if run not in parents]
        by_name = {run.info.run_name: run for run in children}
        assert len(by_name) == len(children), [run.info.run_name for run in children]
        return parents, by_name

    return read
