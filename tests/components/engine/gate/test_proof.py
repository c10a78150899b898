"""A leaf is shipped only where its file does again what its report says."""

import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset
from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate import proof
from collabopt.components.engine.gate.proof import prove, prove_on
from collabopt.components.engine.records import Interval, Proof, write_record
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.task import DEFAULT_TASK

SAMPLES = 40


@pytest.fixture(scope="module")
def tflite(examples):
    return examples[0].tflite.read_bytes()


@pytest.fixture(scope="module")
def dataset(tflite, tmp_path_factory):
    """60 test samples, of which the model is right about three in four of the first 40, and none of the rest."""
    inputs = np.random.default_rng(1).random((60, 6, 5, 2), dtype=np.float32)
    predicted = predict(tflite, inputs).argmax(axis=-1)
    right = (np.arange(60) < SAMPLES) & (np.arange(60) % 4 > 0)
    test = Samples(inputs, np.where(right, predicted, (predicted + 1) % 4))
    directory = tmp_path_factory.mktemp("data")
    splits = dict.fromkeys(("train", "calibration", "validation"), Samples(inputs[:4], test.labels[:4]))
    write_dataset(Splits({**splits, "test": test}), directory, source="test", seed=0)
    return StoredDataset(directory)


@pytest.fixture
def report(make_report, tflite):
    """A report whose proof holds."""
    return make_report(0.75).model_copy(
        update={
            "task": DEFAULT_TASK,
            "deployed": inspect_tflite(tflite),
            "proof": Proof(samples=SAMPLES, metrics={"accuracy": 0.75}),
        }
    )


def with_proof(report, samples=SAMPLES, **metrics):
    return report.model_copy(update={"proof": Proof(samples=samples, metrics=metrics)})


def test_a_file_that_does_what_its_report_says_is_proven(report, tflite, dataset):
    prove(report, tflite, dataset)


def test_the_metric_is_that_of_the_first_samples_alone(report, tflite, dataset):
    prove(with_proof(report, samples=4, accuracy=0.75), tflite, dataset)
    prove(with_proof(report, samples=60, accuracy=0.5), tflite, dataset)
    with pytest.raises(CollaboptError):
        prove(with_proof(report, samples=60, accuracy=0.75), tflite, dataset)


@pytest.mark.parametrize(("value", "samples", "possible"), [(0.5, 60, True), (0.75, 40, True), (0.9, 60, False),
    (0.49, 60, False), (0.76, 40, False)])  # fmt: skip
def test_a_figure_of_the_whole_split_that_the_proof_rules_out_is_refused(
    report, tflite, dataset, make_report, value, samples, possible
):
    """Right on 30 of the first 40 samples is right on 30 to 50 of 60."""
    interval = Interval(samples=samples, low=0, high=1, method="Wilson")
    changed = report.model_copy(update={"metrics": {"accuracy": value}, "interval": interval})
    if possible:
        prove(changed, tflite, dataset)
    else:
        with pytest.raises(CollaboptError, match=f"its report says {value:g} of all {samples} test samples"):
            prove(changed, tflite, dataset)


def test_given_samples_do_as_well_as_a_data_set(report, tflite, dataset):
    inputs, labels = dataset.inputs("test"), dataset.labels("test")
    prove_on(report, tflite, inputs, labels)
    with pytest.raises(CollaboptError, match=r"is 0 in LiteRT here, but 0\.75 in its report"):
        prove_on(report, tflite, inputs, (labels + 1 + (np.arange(60) % 4 == 0)) % 4)


@pytest.mark.parametrize("recorded", [0.8, 0.7, 0.76, 0.74, 0.0, float("nan"), float("inf")])
def test_another_metric_than_recorded_stops_the_promotion(report, tflite, dataset, recorded):
    with pytest.raises(CollaboptError, match="leaf 'ptq' is not proven, so that nothing is promoted") as refusal:
        prove(with_proof(report, accuracy=recorded), tflite, dataset)
    assert f"is 0.75 in LiteRT here, but {recorded:.6g} in its report" in refusal.value.what
    assert "run its stage again" in refusal.value.todo


def test_roundings_of_another_processor_are_tolerated(report, tflite, dataset):
    prove(with_proof(report, accuracy=0.75 * 1.009), tflite, dataset)
    prove(with_proof(report, accuracy=0.75 * 0.991), tflite, dataset)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_metric_that_is_not_finite_is_not_reproduced_by_another_such(report, tflite, dataset, monkeypatch, value):
    metric = replace(TASK.metric, compute=lambda outputs, labels: value)
    monkeypatch.setattr(sys.modules[TASK.__class__.__module__], "load_task", lambda path: replace(TASK, metric=metric))
    with pytest.raises(CollaboptError, match=f"is {value} in LiteRT here, but {value} in its report"):
        prove(with_proof(report, accuracy=value), tflite, dataset)


@pytest.mark.parametrize(
    "nothing", [None, Proof(samples=0, metrics={"accuracy": 0.75}), Proof(samples=-3, metrics={"accuracy": 0.75})]
)
def test_a_report_without_a_proof_is_refused(report, tflite, dataset, nothing):
    with pytest.raises(CollaboptError, match="its report holds nothing that could be reproduced"):
        prove(report.model_copy(update={"proof": nothing}), tflite, dataset)


def test_a_proof_without_the_deciding_metric_is_refused(report, tflite, dataset):
    with pytest.raises(CollaboptError, match="but nan in its report"):
        prove(with_proof(report, loss=0.1), tflite, dataset)


def test_another_file_is_refused_before_it_runs(report, tflite, dataset, monkeypatch):
    monkeypatch.setattr(proof, "_predict", lambda *_: pytest.fail("an unknown file was run"))
    changed = tflite[:-1] + bytes([tflite[-1] ^ 1])
    with pytest.raises(CollaboptError, match=f"but its report is about {report.deployed.sha256}"):
        prove(report, changed, dataset)


def test_too_few_samples_are_refused(report, tflite, dataset):
    with pytest.raises(CollaboptError, match="names 61 test samples, but the data set has 60"):
        prove(with_proof(report, samples=61, accuracy=0.75), tflite, dataset)


def test_a_file_that_litert_does_not_run_is_refused(report, dataset):
    import hashlib

    junk = b"junk"
    deployed = report.deployed.model_copy(update={"sha256": hashlib.sha256(junk).hexdigest()})
    with pytest.raises(CollaboptError, match="LiteRT does not run it"):
        prove(report.model_copy(update={"deployed": deployed}), junk, dataset)


def test_a_task_that_is_not_there_is_refused(report, tflite, dataset):
    with pytest.raises(CollaboptError, match="cannot be imported"):
        prove(report.model_copy(update={"task": "no_such_package:TASK"}), tflite, dataset)


def test_it_works_without_tensorflow(report, tflite, dataset, tmp_path):
    write_record(report, tmp_path)
    (tmp_path / "model.tflite").write_bytes(tflite)
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from collabopt.components.engine.datasets.store import StoredDataset\n"
        "from collabopt.components.engine.gate.proof import prove\n"
        "from collabopt.components.engine.records import read_leaf_report\n"
        "leaf = Path(sys.argv[1])\n"
        "prove(read_leaf_report(leaf), (leaf / 'model.tflite').read_bytes(), StoredDataset(sys.argv[2]))\n"
        "print(sorted({'tensorflow', 'tf_keras', 'keras', 'mlflow'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", code, str(tmp_path), str(dataset.directory)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "[]"
