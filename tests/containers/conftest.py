"""Containers of the image that `.ci/image` has built, as strictly confined as a cluster may do it."""

import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

DOCKER_VARIABLE = "COLLABOPT_DOCKER"
IMAGE_VARIABLE = "COLLABOPT_IMAGE"

# The user is left to the image. /tmp is what Kubernetes lets every stage write, besides what KFP mounts.
CONFINED = {
    "read_only": True,
    "tmpfs": {"/tmp": ""},
    "cap_drop": ["ALL"],
    "security_opt": ["no-new-privileges"],
}


@dataclass(frozen=True)
class Ended:
    """A container that has run: what it was told to be, and how it ended."""

    attributes: dict[str, Any]
    exit_code: int


@pytest.fixture(scope="session")
def image() -> str:
    """Name of the image; components name it too, since it is in the environment from the start."""
    if not (os.environ.get(DOCKER_VARIABLE) and os.environ.get(IMAGE_VARIABLE)):
        pytest.skip("no image to run: .ci/image builds it and runs these tests")
    return os.environ[IMAGE_VARIABLE]


@pytest.fixture(scope="session")
def docker(image: str) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `docker ARGUMENTS`."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [os.environ[DOCKER_VARIABLE], *map(str, arguments)]
        environment = {**os.environ, "DOCKER_BUILDKIT": "1"}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return run


@pytest.fixture(scope="session")
def in_container(docker: Callable[..., subprocess.CompletedProcess[str]], image: str) -> Callable[..., str]:
    """Runs a command in a confined container and returns what it prints; it must succeed."""

    def run(*command: object, image: str = image, options: tuple[str, ...] = ("--network", "none")) -> str:
        confined = ["--read-only", "--tmpfs", "/tmp", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"]
        done = docker("run", "--rm", *confined, *options, image, *command)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return run


@pytest.fixture
def containers(monkeypatch: pytest.MonkeyPatch) -> list[Ended]:
    """Lets `kfp.local` tell how containers end, and collects them.

    The runner of kfp 2.17 lets Docker remove a container as soon as it has ended, and takes one that is gone for one
    that has succeeded (kubeflow/pipelines issue #13332), so that a stage that fails fast counts as done.
    """
    ended: list[Ended] = []
    monkeypatch.setattr("kfp.local.docker_task_handler.run_docker_container", _recorder(ended))
    return ended


def _recorder(ended: list[Ended]) -> Callable[..., int]:
    def run_docker_container(client: Any, image: str, command: list[str], volumes: dict, **options: Any) -> int:
        container = client.containers.run(image, command, detach=True, volumes=volumes, **options)
        try:
            for line in container.logs(stream=True):
                print(line.decode(errors="replace"), end="")
            exit_code = int(container.wait()["StatusCode"])
            ended.append(Ended(container.attrs, exit_code))
            return exit_code
        finally:
            container.remove(force=True)

    return run_docker_container


@pytest.fixture
def confined_runner(image: str, containers: list[Ended], tmp_path: Path) -> Callable[..., Path]:
    """Makes `kfp.local` run every task in a confined container; returns its pipeline root."""
    from kfp import local

    def start(environment: Mapping[str, str] = {}, **options: Any) -> Path:
        root = tmp_path / "root"
        root.mkdir()
        root.chmod(0o777)  # it is mounted as it is, and the image's user is another one
        # On the network of this machine, where the servers of the tests listen.
        runner = local.DockerRunner(**CONFINED, network_mode="host", environment=dict(environment), **options)
        local.init(runner, pipeline_root=str(root))
        return root

    return start


@pytest.fixture
def bucket(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """URI in a new bucket."""
    from google.cloud import storage

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    made = storage.Client(project="test").create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    yield f"gs://{made.name}/releases"
