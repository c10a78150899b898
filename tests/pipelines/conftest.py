import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from collabopt.pipelines import cli
from tests.pipelines.kubeflow_server import Server, kubeflow_server

TOYS = Path(__file__).parent

# The command, with a toy in the place of a real pipeline.
COMMAND = """
import sys
from collabopt.pipelines import PIPELINES, cli
PIPELINES["quantization"] = "toy_pipelines:" + sys.argv.pop(1)
cli.main()
"""


@pytest.fixture
def toys(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the worker of a run import `toy_pipelines`."""
    monkeypatch.setenv("PYTHONPATH", str(TOYS), prepend=os.pathsep)


@pytest.fixture
def start_command(toys: None, tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts `collabopt run` on a toy pipeline in an empty directory; what is left of it is killed at the end."""
    started: list[subprocess.Popen[str]] = []

    def start(toy: str, *arguments: str, pipeline: str = "quantization") -> subprocess.Popen[str]:
        options = ["run", "--example", "digits", "--pipeline", pipeline, "--output", "out", *arguments]
        process = subprocess.Popen(
            [sys.executable, "-c", COMMAND, toy, *options],
            cwd=tmp_path,
            env={**os.environ, "TOY_PIDS": str(tmp_path / "pids")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            process.wait()


@pytest.fixture
def collabopt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command in an empty directory; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["collabopt", *arguments])
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = int(end.code or 0)
        return code, *capsys.readouterr()

    return command


@pytest.fixture
def kubeflow(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A Kubeflow Pipelines server that the command finds; it must be asked for nothing that its API does not define."""
    for variable in ("KFP_EXISTING_TOKEN", "KFP_COOKIES", "KFP_NAMESPACE", "KF_PIPELINES_SA_TOKEN_PATH"):
        monkeypatch.delenv(variable, raising=False)
    with kubeflow_server() as server:
        monkeypatch.setenv("KF_PIPELINES_ENDPOINT", server.url)
        yield server
    assert server.violations == []
