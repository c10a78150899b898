"""The last check before a leaf is shipped: its file, run in LiteRT, must do what its report says."""

import hashlib
import math

import numpy as np

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import LeafReport, Proof

# On the machine of the stage the metric comes out exactly. Kernels of another processor may round an integer the other
# way here and there, and so decide a close case differently: 2 of 256.
RELATIVE_TOLERANCE = 0.01
_ABSOLUTE_TOLERANCE = 1e-6


def prove(report: LeafReport, tflite: bytes, dataset: StoredDataset) -> None:
    """Reproduces what a leaf's report claims, on the first samples of the test split.

    Args:
        report: The leaf's report.
        tflite: The file that is to be shipped.
        dataset: The data set that the leaf was measured on.

    Raises:
        CollaboptError: It cannot be reproduced, or there is nothing to reproduce.
    """
    samples = _proof_of(report).samples
    prove_on(report, tflite, dataset.inputs("test", samples), dataset.labels("test", samples))


def prove_on(report: LeafReport, tflite: bytes, inputs: np.ndarray, labels: np.ndarray) -> None:
    """As `prove`, on given samples of the test split.

    Args:
        report: The leaf's report.
        tflite: The file that is to be shipped.
        inputs: `[n, ...]` float32, in the split's order; no fewer than the report names.
        labels: `[n, ...]`.

    Raises:
        CollaboptError: It cannot be reproduced, or there is nothing to reproduce.
    """
    from collabopt.components.engine.training.task import load_task

    proof = _proof_of(report)
    _check_file(report, tflite)
    if min(len(inputs), len(labels)) < proof.samples:
        raise _refused(
            report,
            f"its report names {proof.samples} test samples, but the data set has {min(len(inputs), len(labels))}",
        )
    task = load_task(report.task)
    _check_whole_split(report, proof, task.metric.proportion)
    outputs = _predict(report, tflite, inputs[: proof.samples])
    name = report.metric.name
    expected = proof.metrics.get(name, math.nan)
    found = task.measure(outputs, labels[: proof.samples]).get(name, math.nan)
    if not _agree(found, expected):
        raise _refused(
            report,
            f"its {name} on the first {proof.samples} test samples is {found:.6g} in LiteRT here, "
            f"but {expected:.6g} in its report",
        )


def _proof_of(report: LeafReport) -> Proof:
    if report.proof is None or report.proof.samples < 1:
        raise _refused(report, "its report holds nothing that could be reproduced")
    return report.proof


def _check_file(report: LeafReport, tflite: bytes) -> None:
    found = hashlib.sha256(tflite).hexdigest()
    if found != report.deployed.sha256:
        raise _refused(report, f"its file has sha256 {found}, but its report is about {report.deployed.sha256}")


def _check_whole_split(report: LeafReport, proof: Proof, is_proportion: bool) -> None:
    """Refuses a figure of the whole test split that cannot be, given that of its first samples.

    A share of samples that the model is right about is bounded by that of the first ones; any metric of as many samples
    is the same.
    """
    if report.interval is None:
        return
    value, known = report.metrics.get(report.metric.name, math.nan), proof.metrics.get(report.metric.name, math.nan)
    total, rest = report.interval.samples, report.interval.samples - proof.samples
    if not is_proportion and rest:
        return
    least = known * proof.samples / total
    if not least - _ABSOLUTE_TOLERANCE <= value <= least + rest / total + _ABSOLUTE_TOLERANCE:
        raise _refused(
            report,
            f"its report says {value:.6g} of all {total} test samples, which cannot be with {known:.6g} of the first "
            f"{proof.samples}",
        )


def _predict(report: LeafReport, tflite: bytes, inputs: np.ndarray) -> np.ndarray:
    from collabopt.components.engine.deployed.evaluate import predict

    try:
        return predict(tflite, inputs)
    except (RuntimeError, ValueError) as error:
        raise _refused(report, f"LiteRT does not run it: {' '.join(str(error).split())}") from error


def _agree(found: float, expected: float) -> bool:
    if not (math.isfinite(found) and math.isfinite(expected)):
        return False
    return math.isclose(found, expected, rel_tol=RELATIVE_TOLERANCE, abs_tol=_ABSOLUTE_TOLERANCE)


def _refused(report: LeafReport, why: str) -> CollaboptError:
    return CollaboptError(
        f"leaf '{report.name}' is not proven, so that nothing is promoted: {why}",
        where=f"leaf '{report.name}'",
        todo="pass the leaf with the file, the report and the data set of one run; if they are, run its stage again",
    )
