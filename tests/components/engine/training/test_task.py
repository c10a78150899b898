import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.datasets.load import load_dataset
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.task import DEFAULT_TASK, Metric, Task, load_task


@pytest.fixture
def importable(tmp_path, monkeypatch):
    """Writes a module into a package on sys.path; every test has a package of its own name."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / f"users_{tmp_path.name}"
    package.mkdir()
    (package / "__init__.py").touch()

    def write(source: str) -> str:
        (package / "work.py").write_text(source, encoding="utf-8")
        return f"{package.name}.work"

    yield write
    for name in [name for name in sys.modules if name.startswith(package.name)]:
        del sys.modules[name]


@pytest.fixture
def regression(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    return load_task("regression_task:TASK")


def test_the_default_task_is_classification():
    assert load_task(DEFAULT_TASK).metric == load_task(DEFAULT_TASK).metric
    assert load_task(DEFAULT_TASK).metric.name == "accuracy"


def test_a_task_comes_from_a_users_module(importable):
    module = importable(
        "from collabopt.components.engine.training.task import Metric, Task\n"
        "worst = Metric('worst', higher_is_better=False, compute=lambda outputs, labels: abs(outputs - labels).max())\n"
        "MINE = Task(name='mine', metric=worst, loss=lambda model: 'mse')\n"
    )
    task = load_task(f"{module}:MINE")
    assert task.name == "mine"
    assert task.measure(np.array([1.0, 2.0]), np.array([1.5, 5.0])) == {"worst": 3.0}


@pytest.mark.parametrize("path", ["", "module", "module:", ":TASK", ".module:TASK"])
def test_what_is_no_import_path_is_refused(path):
    with pytest.raises(CollaboptError, match="is not the import path of a task") as caught:
        load_task(path)
    assert "package.module:attribute" in caught.value.todo


def test_a_missing_module_is_named():
    with pytest.raises(CollaboptError, match=r"cannot be imported: No module named 'no_such_package'"):
        load_task("no_such_package.work:TASK")


def test_a_module_that_fails_to_import_says_why(importable):
    module = importable("from collections import no_such_name\n")
    with pytest.raises(CollaboptError, match="cannot import name 'no_such_name'"):
        load_task(f"{module}:TASK")


def test_a_missing_attribute_is_named(importable):
    module = importable("")
    with pytest.raises(CollaboptError, match="has no task 'TASK'"):
        load_task(f"{module}:TASK")


def test_an_error_in_a_users_module_is_not_taken_for_a_missing_task(importable):
    module = importable("import math\nmath.no_such_function\n")
    with pytest.raises(AttributeError, match="no_such_function"):
        load_task(f"{module}:TASK")


def test_what_is_no_task_is_refused(importable):
    module = importable("TASK = {'name': 'mine'}\n")
    with pytest.raises(CollaboptError, match="is a dict, not a Task"):
        load_task(f"{module}:TASK")


def test_measure_reports_the_deciding_metric_and_the_others():
    task = Task(
        name="two",
        metric=Metric("mean", True, lambda outputs, labels: np.float32(outputs.mean())),
        loss=lambda model: "mse",
        more_metrics=(Metric("rows", True, lambda outputs, labels: len(labels)),),
    )
    measured = task.measure(np.ones((3, 2), np.float32), np.zeros(3))
    assert measured == {"mean": 1.0, "rows": 3.0}
    assert all(type(value) is float for value in measured.values())


def test_a_regression_task_brings_its_data_and_is_measured(regression, tmp_path):
    spec = load_dataset("task", tmp_path / "data", DatasetSettings(seed=3), regression)
    assert spec.sizes == {"train": 96, "calibration": 16, "validation": 16, "test": 32}
    assert (spec.feature_shape, spec.label_shape, spec.label_dtype) == ((6,), (), "float32")

    labels = StoredDataset(tmp_path / "data").labels("test")
    regression.check(labels, (1,))
    assert regression.measure(labels[:, np.newaxis] + 0.5, labels)["mean_absolute_error"] == pytest.approx(0.5)
    assert not regression.metric.higher_is_better


def test_the_data_of_a_task_depend_on_the_seed_alone(regression, tmp_path):
    digests = [
        load_dataset(source, tmp_path / name, DatasetSettings(seed=seed), regression).digest
        for name, source, seed in (("a", "task", 0), ("b", "task://", 0), ("c", "task", 1))
    ]
    assert digests[0] == digests[1] != digests[2]


def test_a_train_share_leaves_the_other_splits_of_a_task_as_they_are(regression, tmp_path):
    load_dataset("task", tmp_path / "all", DatasetSettings(), regression)
    spec = load_dataset("task", tmp_path / "half", DatasetSettings(train_share=0.5), regression)
    whole, half = StoredDataset(tmp_path / "all"), StoredDataset(tmp_path / "half")
    assert spec.sizes["train"] == 48
    assert set(half.labels("train")) < set(whole.labels("train"))
    for split in ("calibration", "validation", "test"):
        np.testing.assert_array_equal(half.labels(split), whole.labels(split))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (None, "has no data of its own"),
        (lambda seed: [1, 2], "are a list, not Splits"),
        ("no test", "lack the split 'test'"),
        ("too few labels", "'test' has 32 samples but 31 labels"),
    ],
)
def test_data_that_a_task_fails_to_bring_are_refused(regression, tmp_path, data, message):
    def without_test(seed):
        splits = regression.data(seed)
        return replace(splits, samples={name: splits.samples[name] for name in splits.samples if name != "test"})

    def short_test(seed):
        splits = regression.data(seed)
        test = splits.samples["test"]
        return replace(splits, samples={**splits.samples, "test": replace(test, labels=test.labels[1:])})

    task = replace(regression, data={"no test": without_test, "too few labels": short_test}.get(data, data))
    with pytest.raises(CollaboptError, match=message) as caught:
        load_dataset("task", tmp_path / "data", DatasetSettings(), task)
    assert "task 'regression'" in caught.value.where
    assert not (tmp_path / "data").exists()
