"""Test samples to prove a winner on: those of a data set, or the few that a finished run has kept."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import PROOF_SAMPLES


@dataclass(frozen=True, eq=False)
class TestSamples:
    """The first samples of a test split, in its order.

    Attributes:
        inputs: `[n, ...]` float32, as models take them.
        labels: `[n, ...]`.
    """

    __test__ = False

    inputs: np.ndarray
    labels: np.ndarray

    def write(self, path: Path) -> None:
        """Keeps the first `PROOF_SAMPLES` of them in a file."""
        np.savez_compressed(path, inputs=self.inputs[:PROOF_SAMPLES], labels=self.labels[:PROOF_SAMPLES])


def samples_of(dataset: str | Path, limit: int | None = None) -> TestSamples:
    """The first `limit` samples of the test split of a `Dataset` directory."""
    data = StoredDataset(dataset)
    return TestSamples(data.inputs("test", limit), data.labels("test", limit))


def read_samples(path: Path, limit: int | None = None) -> TestSamples:
    """Reads the first `limit` samples of what `TestSamples.write` has written.

    Raises:
        CollaboptError: The file is missing or holds something else.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return TestSamples(arrays["inputs"][:limit], arrays["labels"][:limit])
    except (OSError, ValueError, KeyError) as error:
        raise CollaboptError(
            "the test samples of this run cannot be read, so that no leaf of it can be proven",
            where=str(path),
            todo="run the pipeline again; to see the decision alone, use --dry-run",
        ) from error
