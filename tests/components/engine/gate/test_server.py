"""The same through a real MLflow server: proxied artifacts, REST instead of SQL."""

import os
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from mlflow import MlflowClient

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.run import run_gate
from collabopt.components.engine.tracking import check_reachable, stage_run


@pytest.fixture
def server(tmp_path, empty_store):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{tmp_path}/server.db", "--artifacts-destination", f"{tmp_path}/art"]
    (tmp_path / "server.db").write_bytes(empty_store.read_bytes())
    with open(tmp_path / "server.log", "wb") as log:
        process = subprocess.Popen(command, env=environment, cwd=tmp_path, stdout=log, stderr=log)
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(240):
            assert process.poll() is None, (tmp_path / "server.log").read_text()
            try:
                check_reachable(address)
                break
            except CollaboptError:
                time.sleep(0.5)
        yield address
    finally:
        process.terminate()
        process.wait(timeout=60)


def test_stages_and_gate_through_a_server(
    server, client, examples, make_leaf, baseline_directory, tmp_path, monkeypatch
):
    import mlflow.pyfunc

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client = MlflowClient(tracking_uri=server)
    with stage_run("ptq", tags={"pathway": "standard"}) as run:
        run.log_params({"representative_samples": 200})
        run.log_epoch(1, {"loss": 0.5})
    leaves = {"ptq": make_leaf(examples[0], 0.9)}
    for output in ("first", "second"):
        decision = run_gate(
            baseline=baseline_directory,
            leaves=leaves,
            policy_text="",
            output=str(tmp_path / output),
            model_name="digits",
            parameters={"epochs": 3},
        )
    assert decision.winner == "ptq"
    runs = client.search_runs([run.experiment_id])
    (parent,) = [found for found in runs if found.data.tags.get("kfp.pipeline_run_id") == "run-1"]
    assert parent.info.status == "FINISHED"
    assert parent.data.params["epochs"] == "3"
    assert {found.info.run_name for found in runs} == {"exhaustive-1", "ptq", "deployment_gate"}
    assert [str(found.version) for found in client.search_model_versions("name='digits'")] == ["1"]
    model = mlflow.pyfunc.load_model("models:/digits@champion")
    np.testing.assert_allclose(model.predict(examples[0].x), examples[0].y, atol=0.02)
