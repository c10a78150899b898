"""Real, tiny `.tflite` leaves, and the servers that a promotion talks to."""

import os
import shutil
import sys
import traceback
import uuid
from pathlib import Path

import pytest
from google.cloud import storage
from mlflow import MlflowClient

from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.records import Contract, LeafReport, MetricOfRecord, Step, write_record
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.promotion import Candidate, promote
from collabopt.components.engine.tracking import StageRun
from collabopt.components.engine.tracking.store import experiment_id

_TECHNIQUES = {"pqat": ("prune", "sparsity_preserving_qat")}


@pytest.fixture(scope="session")
def make_leaf(tmp_path_factory):
    """Writes a leaf directory for an example and returns its path; a `variant` makes its file another one."""

    def make(example, value=0.9, *, stage="ptq", variant=b""):
        directory = tmp_path_factory.mktemp("leaf")
        data = example.tflite.read_bytes()
        # Behind the flatbuffer, where nobody reads it.
        (directory / "model.tflite").write_bytes(data + variant)
        lineage = [Step(stage="baseline", technique="import_model")]
        for technique in _TECHNIQUES.get(stage, ("post_training_quantize",)):
            lineage.append(Step(stage=stage, technique=technique, settings={"seed": 0}))
        report = LeafReport(
            lineage=lineage,
            task="package:TASK",
            dataset_digest="d1",
            metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
            metrics={"accuracy": value},
            deployed=inspect_tflite(data + variant),
            contract=Contract(),
        )
        write_record(report, directory)
        (directory / "model_data.cc").write_text("// " + report.deployed.sha256)
        (directory / "model_data.h").write_text("#pragma once\n")
        return str(directory)

    return make


@pytest.fixture(scope="session")
def make_candidate(make_leaf, examples):
    """The candidate of a leaf of its own, with a model card."""

    def make(number=0):
        directory = Path(make_leaf(examples[0], variant=bytes([number]) * 16 if number else b""))
        card = directory / "card.md"
        card.write_text(f"# card of {number}\n")
        report = LeafReport.model_validate_json((directory / "report.json").read_bytes())
        return Candidate(report, directory, {"model_card.md": card})

    return make


@pytest.fixture(autouse=True)
def surroundings(monkeypatch, tmp_path):
    """No pipeline run but the test's own, short patience."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "STORAGE_EMULATOR_HOST"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "run-1")
    monkeypatch.setenv("COLLABOPT_PIPELINE_NAME", "exhaustive-1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    monkeypatch.setenv("COLLABOPT_STORAGE_DEADLINE_SECONDS", "20")


@pytest.fixture
def client(empty_store, tmp_path, monkeypatch, surroundings):
    """An SQLite store of its own."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def served(mlflow_server, monkeypatch, surroundings):
    """A client of the server, which is the process's tracking store."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_server)
    return MlflowClient(tracking_uri=mlflow_server)


@pytest.fixture
def bucket_uri(gcs_server, monkeypatch, surroundings):
    """A bucket of fake-gcs-server."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    bucket = storage.Client(project="test").create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    return f"gs://{bucket.name}/releases"


@pytest.fixture(params=["directory", "bucket"])
def store_uri(request, tmp_path):
    """Both kinds of store."""
    return str(tmp_path / "released") if request.param == "directory" else request.getfixturevalue("bucket_uri")


@pytest.fixture(scope="session")
def new_run():
    """Makes a run of the gate, as a stage run without the surrounding pipeline run."""

    def make(client):
        # Not the default experiment: that of the copied store keeps its artifacts in a local directory.
        run = client.create_run(experiment_id(client), run_name="deployment_gate")
        return StageRun("deployment_gate", run.info.run_id, run.info.experiment_id, client)

    return make


@pytest.fixture(scope="session")
def ship():
    """Promotes a candidate, with the pointer that is there now as the one that was seen."""

    def do(store, candidate, run, name):
        found = champion_of(store, name)
        seen = 0 if found is None else found[1]
        return promote(candidate, name=name, store=store, seen=seen, decision_digest="d" + candidate.sha256, run=run)

    return do


@pytest.fixture(scope="session")
def in_child():
    """Forks a process for a function and returns a function that waits for it: 0, 1 for an error, or minus a signal."""

    def start(do):
        pid = os.fork()
        if pid == 0:
            try:
                do()
                os._exit(0)
            finally:  # whatever was raised: this process must not go on with the tests of its parent
                traceback.print_exc()
                sys.stderr.flush()
                os._exit(1)
        return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    return start


@pytest.fixture(scope="session")
def registered():
    """What the registry says of a name: aliases, and digest -> versions."""

    def read(client, name):
        aliases = {alias: str(number) for alias, number in client.get_registered_model(name).aliases.items()}
        versions = {}
        for version in client.search_model_versions(f"name='{name}'"):
            versions.setdefault(version.tags["sha256"], []).append(str(version.version))
        return aliases, versions

    return read
