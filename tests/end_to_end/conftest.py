"""Runs of the real command: real kfp.local, real TensorFlow, real MLflow on SQLite."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

COLLABOPT = Path(sys.executable).parent / "collabopt"


@dataclass(frozen=True)
class Run:
    """A finished run of the command: where it ran, how it ended, what it said."""

    directory: Path
    exit_code: int
    output: str
    error: str

    @property
    def result(self) -> Path:
        return self.directory / "collabopt-output"


@pytest.fixture(scope="session")
def collabopt(tmp_path_factory):
    """Runs `collabopt ARGUMENTS` in a directory, by default an empty one, where its MLflow store will be too."""
    cache = tmp_path_factory.mktemp("cache")

    def run(*arguments: object, directory: Path | None = None) -> Run:
        directory = directory or tmp_path_factory.mktemp("run")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
        environment = {**kept, "COLLABOPT_CACHE": str(cache), "TF_CPP_MIN_LOG_LEVEL": "2"}
        done = subprocess.run(
            [COLLABOPT, *map(str, arguments)],
            cwd=directory,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        return Run(directory, done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture
def tracking(monkeypatch):
    """Connects to the MLflow store of a run, until the test ends."""
    import mlflow

    def connect(run: Run):
        uri = f"sqlite:///{run.directory / 'mlflow.db'}"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        mlflow.set_tracking_uri(uri)
        return mlflow.MlflowClient()

    yield connect
    mlflow.set_tracking_uri(None)
