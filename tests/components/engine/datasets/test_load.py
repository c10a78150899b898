from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.datasets.load import load_dataset
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.classification import TASK


def archive(path: Path) -> None:
    np.savez(path, x=np.arange(50, dtype=np.float32).reshape(50, 1), y=np.arange(50) % 2)


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("nowhere.npz", "there is nothing here"),
        ("nowhere/*.tfrecord", "there is nothing here"),
        ("s3://bucket/data.npz", "there is nothing here"),
        ("notes.txt", "this is no data set that can be read"),
    ],
)
def test_a_source_that_does_not_read_is_told_what_a_source_is(tmp_path, monkeypatch, source, what):
    monkeypatch.chdir(tmp_path)
    Path("notes.txt").write_text("no data")
    with pytest.raises(CollaboptError, match=what) as caught:
        load_dataset(source, tmp_path / "out", DatasetSettings(), TASK)
    assert caught.value.where == source
    for kind in (".npz", ".tfrecord", "images", "gs://", "example://digits", "task"):
        assert kind in caught.value.todo


def test_a_bucket_is_downloaded_and_forgotten(tmp_path, monkeypatch):
    seen = {}

    def download(uri: str, directory: Path) -> Path:
        seen.update(uri=uri, directory=directory)
        archive(directory / "data.npz")
        return directory / "data.npz"

    monkeypatch.setattr("collabopt.components.engine.fetch.local_copy", download)
    spec = load_dataset("gs://bucket/data.npz", tmp_path / "out", DatasetSettings(), TASK)
    assert seen["uri"] == spec.source == "gs://bucket/data.npz"
    assert not seen["directory"].exists()
    assert len(StoredDataset(tmp_path / "out").inputs("test")) == 10


def test_messages_name_the_bucket_and_not_the_download(tmp_path, monkeypatch):
    def download(uri: str, directory: Path) -> Path:
        (directory / "data" / "train" / "cat").mkdir(parents=True)
        return directory / "data"

    monkeypatch.setattr("collabopt.components.engine.fetch.local_copy", download)
    with pytest.raises(CollaboptError, match="class 'cat' has no images") as caught:
        load_dataset("gs://bucket/data/", tmp_path / "out", DatasetSettings(), TASK)
    assert caught.value.where == "gs://bucket/data/train/cat"


def test_the_seed_is_recorded_and_decides(tmp_path):
    archive(tmp_path / "data.npz")
    specs = [
        load_dataset(str(tmp_path / "data.npz"), tmp_path / str(n), DatasetSettings(seed=seed), TASK)
        for n, seed in enumerate((4, 4, 5))
    ]
    assert [spec.seed for spec in specs] == [4, 4, 5]
    assert specs[0] == specs[1]
    assert specs[0].digest != specs[2].digest


def test_a_task_without_data_is_told_so(tmp_path):
    with pytest.raises(CollaboptError, match="this task has no data of its own") as caught:
        load_dataset("task", tmp_path / "out", DatasetSettings(), TASK)
    assert caught.value.where == "task 'classification'"
