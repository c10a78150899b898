import os
import uuid

import numpy as np
import pytest
import requests
from google.cloud import storage

from collabopt.components.engine.datasets.splits import Splits
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.source_digest import data_digest, model_digest
from collabopt.components.engine.stages import import_model_stage, load_dataset_stage
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.task import DEFAULT_TASK, Task


@pytest.fixture
def bucket(gcs_server, monkeypatch):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    return storage.Client(project="test").create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def npz(tmp_path):
    """A data set of three classes; `write(1)` makes it another one of the same form."""

    def write(seed=0):
        random = np.random.default_rng(seed)
        np.savez(tmp_path / "data.npz", x=random.random((60, 8, 8, 1), np.float32), y=np.arange(60) % 3)
        return str(tmp_path / "data.npz")

    return write


def task_with(**fields):
    return Task(name="t", metric=TASK.metric, loss=TASK.loss, data=lambda seed: Splits({}), **fields)


def test_a_file_is_known_by_what_it_holds_and_not_by_when_it_was_written(tmp_path):
    path = tmp_path / "model.keras"
    path.write_bytes(b"one")
    before = model_digest(str(path))
    os.utime(path, (1, 1))
    assert model_digest(str(path)) == before
    path.write_bytes(b"two")
    assert model_digest(str(path)) != before
    path.write_bytes(b"one")
    assert model_digest(str(path)) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda root: (root / "a" / "1.png").write_bytes(b"other"),
        lambda root: (root / "a" / "3.png").write_bytes(b"1"),
        lambda root: (root / "a" / "1.png").rename(root / "b" / "1.png"),
        lambda root: (root / "a" / "1.png").unlink(),
        lambda root: (root / "linked" / "4.png").write_bytes(b"4"),
    ],
    ids=["content", "new file", "moved", "deleted", "behind a link"],
)
def test_a_directory_is_known_by_the_names_and_contents_of_all_its_files(tmp_path, change):
    root = tmp_path / "images"
    for name in ("a/1.png", "b/2.png"):
        (root / name).parent.mkdir(parents=True)
        (root / name).write_bytes(name.encode())
    (tmp_path / "elsewhere").mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "linked" / "back").symlink_to(root)
    before = data_digest(str(root), TASK)
    assert data_digest(str(root), TASK) == before
    change(root)
    assert data_digest(str(root), TASK) != before


def test_a_pattern_is_known_by_the_files_that_match_it(tmp_path):
    pattern = str(tmp_path / "train-*.tfrecord")
    (tmp_path / "train-0.tfrecord").write_bytes(b"0")
    before = data_digest(pattern, TASK)
    (tmp_path / "test-0.tfrecord").write_bytes(b"0")
    assert data_digest(pattern, TASK) == before
    (tmp_path / "train-1.tfrecord").write_bytes(b"1")
    assert data_digest(pattern, TASK) != before


def test_objects_are_known_by_their_checksums_without_a_download(bucket, monkeypatch):
    bucket.blob("data/train.npz").upload_from_string(b"one")
    bucket.blob("data/a/test.npz").upload_from_string(b"two")
    send, urls = requests.Session.send, []
    monkeypatch.setattr(
        requests.Session,
        "send",
        lambda self, request, **more: (urls.append(request.url), send(self, request, **more))[1],
    )
    directory, file = f"gs://{bucket.name}/data/", f"gs://{bucket.name}/data/train.npz"
    before = data_digest(directory, TASK), data_digest(file, TASK)
    assert urls and not any("alt=media" in url or "/download/" in url for url in urls)

    bucket.blob("data/train.npz").upload_from_string(b"one")  # another generation of the same content
    assert (data_digest(directory, TASK), data_digest(file, TASK)) == before
    bucket.blob("data/a/test.npz").upload_from_string(b"owt")
    assert data_digest(directory, TASK) != before[0]
    assert data_digest(file, TASK) == before[1]
    bucket.blob("data/train.npz").upload_from_string(b"eno")
    assert data_digest(file, TASK) != before[1]


def test_examples_are_known_by_name_and_version(monkeypatch):
    model, data = model_digest("example://digits"), data_digest("example://digits", TASK)
    assert model_digest("example://fashion-mnist") != model
    monkeypatch.setattr("collabopt.components.engine.models.examples.ARCHITECTURE_VERSION", 99)
    assert model_digest("example://digits") != model
    monkeypatch.setattr("collabopt.components.engine.datasets.examples.VERSION", 99)
    assert data_digest("example://digits", TASK) != data


def test_an_example_of_files_is_known_by_these_files(tmp_path, monkeypatch):
    monkeypatch.setenv("COLLABOPT_FASHION_MNIST", str(tmp_path))
    names = [f"{part}-{kind}-ubyte.gz" for part in ("train", "t10k") for kind in ("images-idx3", "labels-idx1")]
    with pytest.raises(CollaboptError, match="not on this machine"):
        data_digest("example://fashion-mnist", TASK)
    for name in names:
        (tmp_path / name).write_bytes(b"1")
    digests = {data_digest("example://fashion-mnist", TASK)}
    for name in names:
        (tmp_path / name).write_bytes(b"2")
        digests.add(data_digest("example://fashion-mnist", TASK))
    assert len(digests) == 5


def test_data_of_a_task_are_known_by_the_version_that_it_names():
    plain = data_digest("task", task_with())
    first = data_digest("task", task_with(data_version=lambda: "2026-11-01"))
    assert plain == data_digest("task://", task_with())
    assert len({plain, first, data_digest("task", task_with(data_version=lambda: "2026-11-02"))}) == 3


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("nothing.keras", "does not exist"),
        ("nothing-*.tfrecord", "no file matches"),
        ("s3://bucket/model", "not supported"),
        ("example://unknown", "no example 'unknown'"),
    ],
)
def test_a_source_that_is_not_there_is_refused(tmp_path, monkeypatch, source, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CollaboptError, match=message):
        data_digest(source, TASK)


def test_data_that_change_between_configuring_and_reading_are_refused(npz, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")

    def load(digest):
        return load_dataset_stage(
            source=source,
            source_digest=digest,
            output=str(tmp_path / "dataset"),
            task=DEFAULT_TASK,
            settings={},
            overrides={},
        )

    source = npz()
    configured = data_digest(source, TASK)
    assert load(configured).metrics["test_samples"] == 12
    npz(1)
    with pytest.raises(CollaboptError, match="has changed since the run was configured") as refused:
        load(configured)
    assert refused.value.where == source
    assert load("").metrics["test_samples"] == 12


def test_a_model_that_changes_between_configuring_and_reading_is_refused(data, tmp_path, monkeypatch):
    import tf_keras

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    source = str(tmp_path / "model.keras")
    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3, activation="softmax")])
    model.save(source)
    configured = model_digest(source)
    model.layers[-1].bias.assign([0.0, 1.0, 0.0])
    model.save(source)
    with pytest.raises(CollaboptError, match="has changed since the run was configured"):
        import_model_stage(
            source=source,
            source_digest=configured,
            dataset=str(data.directory),
            output=str(tmp_path / "baseline"),
            task=DEFAULT_TASK,
            settings={},
            overrides={},
        )
