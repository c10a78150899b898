import numpy as np
import pytest

from collabopt.components.engine.datasets.load import load_dataset
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.classification import TASK


def features(size: int, start: int = 0) -> np.ndarray:
    return np.arange(start * 2, (start + size) * 2, dtype=np.float32).reshape(size, 2)


def load(tmp_path, arrays: dict[str, object], **settings) -> StoredDataset:
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    load_dataset(str(path), tmp_path / "out", DatasetSettings(**settings), TASK)
    return StoredDataset(tmp_path / "out")


def numbers(stored: StoredDataset, split: str) -> list[float]:
    return sorted(stored.samples(split).features[:, 0].tolist())


def test_x_and_y_are_split(tmp_path):
    stored = load(tmp_path, {"x": features(100), "y": np.arange(100) % 2, "names": np.array(["a"])})
    assert stored.spec.sizes == {"train": 64, "calibration": 8, "validation": 8, "test": 20}
    assert stored.spec.source == str(tmp_path / "data.npz")
    everything = [number for split in stored.spec.sizes for number in numbers(stored, split)]
    assert sorted(everything) == features(100)[:, 0].tolist()


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_splits_of_the_archive_are_kept(tmp_path, validation):
    arrays = {
        "x_train": features(40),
        "y_train": np.arange(40) % 2,
        "x_test": features(10, start=100),
        "y_test": np.arange(10) % 2,
        f"x_{validation}": features(6, start=200),
        f"y_{validation}": np.arange(6) % 2,
        "x_calibration": features(5, start=300),
    }
    stored = load(tmp_path, arrays)
    assert numbers(stored, "train") == features(40)[:, 0].tolist()
    assert numbers(stored, "test") == features(10, start=100)[:, 0].tolist()
    assert numbers(stored, "validation") == features(6, start=200)[:, 0].tolist()
    assert numbers(stored, "calibration") == features(5, start=300)[:, 0].tolist()
    assert stored.labels("calibration").tolist() == [0] * 5


def test_labels_of_a_calibration_split_are_kept_where_there_are_any(tmp_path):
    arrays = {"x_train": features(40), "y_train": np.arange(40) % 2, "x_test": features(4), "y_test": np.arange(4) % 2}
    stored = load(tmp_path, {**arrays, "x_calibration": features(3), "y_calibration": np.array([7, 7, 7])})
    assert stored.labels("calibration").tolist() == [7] * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_integer_labels_become_one_index_a_sample(tmp_path, dtype):
    stored = load(tmp_path, {"x": features(50), "y": (np.arange(50) % 3).astype(dtype).reshape(50, 1)})
    assert (stored.spec.label_shape, stored.spec.label_dtype) == ((), "int64")
    assert set(stored.labels("train")) == {0, 1, 2}


def test_other_labels_stay_as_they_are(tmp_path):
    stored = load(tmp_path, {"x": features(50), "y": np.linspace(0, 1, 100, dtype=np.float32).reshape(50, 2)})
    assert (stored.spec.label_shape, stored.spec.label_dtype) == ((2,), "float32")


def test_features_are_stored_as_they_are_and_scaled_on_request(tmp_path):
    bytes_ = np.arange(200, dtype=np.uint8).reshape(50, 4)
    stored = load(tmp_path, {"x": bytes_, "y": np.zeros(50, int)})
    assert (stored.spec.feature_dtype, stored.spec.scale, stored.spec.offset) == ("uint8", 1.0, 0.0)
    assert stored.inputs("train").max() > 1
    stored = load(tmp_path, {"x": bytes_, "y": np.zeros(50, int)}, scale=1 / 200, offset=-0.5)
    assert stored.spec.feature_dtype == "uint8"
    assert -0.5 <= stored.inputs("train").min() < stored.inputs("train").max() <= 0.5


def test_64_bit_floats_are_stored_as_models_are_fed(tmp_path):
    assert (
        load(tmp_path, {"x": features(50).astype(np.float64), "y": np.zeros(50, int)}).spec.feature_dtype == "float32"
    )


SPLIT = {"x_train": features(40), "y_train": np.zeros(40, int), "x_test": features(4), "y_test": np.zeros(4, int)}


@pytest.mark.parametrize(
    ("arrays", "what", "todo"),
    [
        ({"x": features(9)}, "the archive has no array 'y'; it holds x", "or just x, y"),
        ({"images": features(9)}, "has no array 'x_train'; it holds images", "x_train, y_train, x_test, y_test"),
        ({}, "it holds nothing", "x_train"),
        ({"x_train": features(9), "y_train": np.zeros(9, int)}, "has no array 'x_test'", "x_test, y_test"),
        ({**SPLIT, "x_val": features(3)}, "has no array 'y_val'", "x_validation"),
        ({"x": features(9), "y": np.zeros(8, int)}, "'x, y' has 9 samples but 8 labels", "one label for every sample"),
        ({**SPLIT, "y_test": np.zeros(3, int)}, "'x_test, y_test' has 4 samples but 3 labels", "one label"),
        (
            {"x": np.array([[1], [2, 3]], dtype=object), "y": np.zeros(2, int)},
            "array 'x' cannot be read: Object arrays",
            "never loaded",
        ),
        ({"x": features(2), "y": np.array([{}, {}])}, "array 'y' cannot be read", "never loaded"),
        ({**SPLIT, "x_calibration": np.array([None])}, "array 'x_calibration' cannot be read", "never loaded"),
        ({"x": features(3), "y": np.array(["a", "b", "c"])}, "labels of 'x, y' must be numbers", "class indices"),
        ({"x": np.float32(1), "y": np.zeros(1, int)}, "features of 'x, y' are a single number", "first axis"),
        ({**SPLIT, "x_calibration": np.float32(1)}, "features of 'x_calibration' are a single number", "first axis"),
        ({"x": np.full((50, 2), 1e39), "y": np.zeros(50, int)}, "contain NaN or infinity", "3.4e38"),
        ({"x": features(3), "y": np.zeros(3, int)}, "the validation split is empty: 3 samples", "more samples"),
        ({**SPLIT, "x_test": np.zeros((4, 3), np.float32)}, r"features of test are \[3\] float32", "same shape"),
    ],
)
def test_unfit_archives_are_refused(tmp_path, arrays, what, todo):
    with pytest.raises(CollaboptError, match=what) as caught:
        load(tmp_path, arrays)
    assert todo in caught.value.todo
    assert caught.value.where == str(tmp_path / "data.npz")
    assert not (tmp_path / "out").exists()


def test_a_file_that_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "data.npz"
    with path.open("wb") as file:
        np.save(file, features(3))
    with pytest.raises(CollaboptError, match=r"this file is not an \.npz archive"):
        load_dataset(str(path), tmp_path / "out", DatasetSettings(), TASK)


def _flip_values(content: bytearray) -> None:
    content[5000] ^= 0xFF


def _break_deflate(content: bytearray) -> None:
    extra_bytes = int.from_bytes(content[28:30], "little")
    content[30 + len("x.npy") + extra_bytes] = 0b111  # a block of a type that there is not


def _mark_encrypted(content: bytearray) -> None:
    central = content.index(b"PK\x01\x02")
    content[6] |= 1
    content[central + 8] |= 1


@pytest.mark.parametrize(
    ("save", "damage", "message"),
    [
        (np.savez, _flip_values, "does not decompress: Bad CRC-32"),
        (np.savez_compressed, _break_deflate, "does not decompress: Error -3"),
        (np.savez, _mark_encrypted, "does not decompress: .*encrypted"),
    ],
)
def test_an_archive_that_does_not_decompress_is_refused(tmp_path, save, damage, message):
    path = tmp_path / "data.npz"
    save(path, x=np.zeros((2000, 2)), y=np.zeros(2000, int))
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    with pytest.raises(CollaboptError, match=message):
        load_dataset(str(path), tmp_path / "out", DatasetSettings(), TASK)
