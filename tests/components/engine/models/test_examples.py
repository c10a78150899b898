import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tf_keras
from sklearn.datasets import load_digits

from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models import examples
from collabopt.components.engine.models.checks import check_fits, check_model
from collabopt.components.engine.models.examples import EXAMPLES, example_model


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> StoredDataset:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    features, labels = data.images[order][..., np.newaxis].astype(np.uint8), data.target[order].astype(np.int64)
    bounds = {"test": (0, 360), "validation": (360, 500), "calibration": (500, 640), "train": (640, len(order))}
    samples = {name: Samples(features[low:high], labels[low:high]) for name, (low, high) in bounds.items()}
    directory = tmp_path_factory.mktemp("digits")
    write_dataset(Splits(samples, scale=1 / 16), directory, source="digits", seed=0)
    return StoredDataset(directory)


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny network, for tests that do not ask how good the model is."""

    def build() -> Any:
        layers = tf_keras.layers
        return tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(10, activation="softmax")])

    fields = {**vars(EXAMPLES["digits"]), "epochs": 1, "build": build}
    monkeypatch.setitem(EXAMPLES, "digits", examples.ExampleModel(**fields))


def accuracy(model: Any, dataset: StoredDataset) -> float:
    outputs = np.asarray(model(dataset.inputs("test"), training=False))
    return float(np.mean(outputs.argmax(axis=-1) == dataset.labels("test")))


def weights_equal(first: Any, second: Any) -> bool:
    pairs = zip(first.get_weights(), second.get_weights(), strict=True)
    return all(np.array_equal(one, other) for one, other in pairs)


def test_digits_baseline_is_good_reported_and_kept(
    digits: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLABOPT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("COLLABOPT_PROGRESS_FILE", str(tmp_path / "progress"))

    model = example_model("digits", digits)

    assert accuracy(model, digits) >= 0.97
    assert 10_000 <= model.count_params() <= 20_000
    check_model(model)
    check_fits(model, digits.spec)
    assert model.optimizer is None
    events = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    epochs = EXAMPLES["digits"].epochs
    assert [(event["stage"], event["event"], event["epoch"], event["epochs"]) for event in events] == [
        ("baseline", "epoch", number, epochs) for number in range(1, epochs + 1)
    ]
    assert events[-1]["metrics"]["val_accuracy"] > 0.9

    again = example_model("digits", digits)
    assert len((tmp_path / "progress").read_text().splitlines()) == epochs, "the second call must not train"
    assert weights_equal(model, again)


@pytest.mark.usefixtures("quick")
def test_same_seed_gives_the_same_weights_and_seeds_are_kept_apart(
    digits: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = []
    for cache, seed in (("a", 0), ("b", 0), ("a", 1)):
        monkeypatch.setenv("COLLABOPT_CACHE", str(tmp_path / cache))
        trained.append(example_model("digits", digits, seed))
    assert weights_equal(trained[0], trained[1])
    assert not weights_equal(trained[0], trained[2])
    assert len(list((tmp_path / "a").rglob("*.keras"))) == 2


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    "damage",
    [
        lambda content: b"rubbish",
        lambda content: content[: len(content) // 2],
        lambda content: content[:2000] + bytes(255 - byte for byte in content[2000:4000]) + content[4000:],
    ],
    ids=["rubbish", "truncated", "overwritten"],
)
def test_damaged_cache_entry_is_trained_again(
    damage: Any, digits: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLABOPT_CACHE", str(tmp_path))
    model = example_model("digits", digits)
    (entry,) = tmp_path.rglob("*.keras")
    damaged = damage(entry.read_bytes())
    entry.write_bytes(damaged)

    assert weights_equal(example_model("digits", digits), model)
    assert entry.read_bytes() != damaged
    assert [path for path in entry.parent.iterdir() if path != entry] == []


@pytest.mark.usefixtures("quick")
def test_cache_lies_in_the_users_cache_by_default(
    digits: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLLABOPT_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    example_model("digits", digits)
    assert list((tmp_path / "xdg" / "collabopt").rglob("digits-*.keras"))


@pytest.mark.usefixtures("quick")
def test_cache_that_cannot_be_written_is_not_fatal(
    digits: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way of a directory")
    monkeypatch.setenv("COLLABOPT_CACHE", str(tmp_path / "file"))
    assert example_model("digits", digits).count_params() > 0


@pytest.mark.usefixtures("quick")
def test_training_never_reads_the_test_split(
    digits: StoredDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLLABOPT_CACHE", str(tmp_path))
    read = []
    samples = StoredDataset.samples

    def recording(self: StoredDataset, split: str) -> Samples:
        read.append(split)
        return samples(self, split)

    monkeypatch.setattr(StoredDataset, "samples", recording)
    example_model("digits", digits)
    assert set(read) == {"train", "validation"}


def test_fashion_mnist_network_has_the_size_it_promises() -> None:
    model = EXAMPLES["fashion-mnist"].build()
    assert 150_000 <= model.count_params() <= 200_000
    assert model.input_shape == (None, 28, 28, 1)
    assert model.output_shape == (None, 10)
    check_model(model)


def test_unknown_example_is_refused(digits: StoredDataset) -> None:
    with pytest.raises(CollaboptError, match="no example model 'cats'") as caught:
        example_model("cats", digits)
    assert "digits" in caught.value.todo


def test_data_of_another_shape_are_refused(digits: StoredDataset) -> None:
    with pytest.raises(CollaboptError, match=r"\(28, 28, 1\).*\(8, 8, 1\)"):
        example_model("fashion-mnist", digits)
