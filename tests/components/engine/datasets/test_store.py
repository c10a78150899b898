import json
import os

import numpy as np
import pytest

from collabopt.components.engine.datasets.splits import SPLIT_NAMES, Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset
from collabopt.components.engine.errors import CollaboptError


def make_splits(size: int = 6, **changed: Samples) -> Splits:
    random = np.random.default_rng(0)
    samples = {
        name: Samples(random.integers(0, 256, (size, 4, 4, 1), dtype=np.uint8), random.integers(0, 3, size))
        for name in SPLIT_NAMES
    }
    return Splits({**samples, **changed}, scale=1 / 255, offset=-0.5)


def test_what_is_written_is_read(tmp_path):
    splits = make_splits()
    spec = write_dataset(splits, tmp_path / "data", source="somewhere", seed=5)
    stored = StoredDataset(tmp_path / "data")
    assert stored.spec == spec
    assert (spec.source, spec.seed, spec.sizes) == ("somewhere", 5, dict.fromkeys(SPLIT_NAMES, 6))
    assert (spec.feature_shape, spec.feature_dtype) == ((4, 4, 1), "uint8")
    assert (spec.label_shape, spec.label_dtype) == ((), "int64")
    for name in SPLIT_NAMES:
        np.testing.assert_array_equal(stored.samples(name).features, splits.samples[name].features)
        np.testing.assert_array_equal(stored.samples(name).labels, splits.samples[name].labels)


def test_models_are_fed_scaled_floats(tmp_path):
    splits = make_splits()
    write_dataset(splits, tmp_path, source="", seed=0)
    stored = StoredDataset(tmp_path)
    expected = splits.samples["test"].features / 255 - 0.5
    assert stored.inputs("test").dtype == np.float32
    np.testing.assert_allclose(stored.inputs("test"), expected, atol=1e-6)
    np.testing.assert_allclose(stored.inputs("test", limit=2), expected[:2], atol=1e-6)
    np.testing.assert_array_equal(stored.labels("test", limit=2), splits.samples["test"].labels[:2])


def test_representative_samples_are_the_first_of_calibration(tmp_path):
    write_dataset(make_splits(), tmp_path, source="", seed=0)
    stored = StoredDataset(tmp_path)
    samples = list(stored.representative(4))
    assert [array.shape for (array,) in samples] == [(1, 4, 4, 1)] * 4
    np.testing.assert_array_equal(np.concatenate([array for (array,) in samples]), stored.inputs("calibration", 4))


def test_samples_are_memory_mapped(tmp_path):
    write_dataset(make_splits(), tmp_path, source="", seed=0)
    samples = StoredDataset(tmp_path).samples("train")
    assert isinstance(samples.features, np.memmap)
    assert isinstance(samples.labels, np.memmap)


def test_the_digest_is_that_of_the_content(tmp_path):
    first = write_dataset(make_splits(), tmp_path / "a", source="a", seed=0).digest
    assert write_dataset(make_splits(), tmp_path / "b", source="b", seed=1).digest == first
    splits = make_splits()
    splits.samples["test"].features[0, 0, 0, 0] ^= 1
    assert write_dataset(splits, tmp_path / "c", source="a", seed=0).digest != first


def test_byte_order_and_memory_layout_do_not_matter(tmp_path):
    values = np.arange(24, dtype="<f4").reshape(6, 2, 2)
    plain = Samples(values, np.arange(6))
    swapped = Samples(np.asfortranarray(values.astype(">f4")), np.arange(6).astype(">i8"))
    splits = dict.fromkeys(SPLIT_NAMES, plain)
    expected = write_dataset(Splits(splits), tmp_path / "a", source="", seed=0)
    assert write_dataset(Splits({**splits, "train": swapped}), tmp_path / "b", source="", seed=0) == expected
    np.testing.assert_array_equal(StoredDataset(tmp_path / "b").inputs("train"), values)


def _bad(**changes):
    features, labels = np.zeros((6, 4, 4, 1), np.uint8), np.zeros(6, np.int64)
    return Samples(changes.get("features", features), changes.get("labels", labels))


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (_bad(features=np.zeros((0, 4, 4, 1), np.uint8), labels=np.zeros(0, int)), "the validation split is empty"),
        (_bad(labels=np.zeros(5, int)), "the validation split has 6 samples but 5 labels"),
        (_bad(features=np.full((6, 4, 4, 1), np.nan)), "features of the validation split contain NaN"),
        (_bad(features=np.full((6, 4, 4, 1), np.inf)), "features of the validation split contain NaN or infinity"),
        (_bad(labels=np.full(6, np.nan)), "labels of the validation split contain NaN"),
        (_bad(labels=np.array(["cat"] * 6)), "labels of the validation split must be numbers"),
        (_bad(features=np.zeros((6, 4, 4, 1), complex)), "features of the validation split must be numbers"),
        (_bad(labels=np.zeros(6, np.longdouble)), "labels of the validation split must be numbers of at most 64 bits"),
        (
            _bad(features=np.zeros((6, 5, 4, 1), np.uint8)),
            r"features of validation are \[5, 4, 1\] uint8 a sample, but",
        ),
        (_bad(features=np.zeros((6, 4, 4, 1), np.int8)), r"those of train are \[4, 4, 1\] uint8"),
        (_bad(labels=np.zeros((6, 2), np.int64)), r"labels of validation are \[2\] int64 a sample"),
    ],
)
def test_unfit_splits_are_refused_before_anything_is_written(tmp_path, samples, message):
    with pytest.raises(CollaboptError, match=message) as caught:
        write_dataset(make_splits(validation=samples), tmp_path / "data", source="somewhere", seed=0)
    assert caught.value.where == "somewhere"
    assert not (tmp_path / "data").exists()


def test_a_missing_split_is_refused(tmp_path):
    splits = make_splits()
    with pytest.raises(CollaboptError, match="the test split is empty"):
        write_dataset(
            Splits({name: splits.samples[name] for name in SPLIT_NAMES if name != "test"}),
            tmp_path / "data",
            source="",
            seed=0,
        )


def test_writing_again_replaces_the_data_set(tmp_path):
    write_dataset(make_splits(8), tmp_path, source="old", seed=0)
    write_dataset(make_splits(6), tmp_path, source="new", seed=0)
    stored = StoredDataset(tmp_path)
    assert (stored.spec.source, len(stored.samples("train"))) == ("new", 6)


def _fail_on_call(function, number):
    calls = iter(range(number))

    def call(*args, **kwargs):
        if next(calls, None) is None:
            raise OSError("no space left on device")
        return function(*args, **kwargs)

    return call


def test_a_failed_write_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(np, "save", _fail_on_call(np.save, 3))
    with pytest.raises(OSError, match="no space left"):
        write_dataset(make_splits(), tmp_path, source="", seed=0)
    assert not list(tmp_path.iterdir())


def test_a_failed_write_keeps_the_data_set_before_it(tmp_path, monkeypatch):
    write_dataset(make_splits(8), tmp_path, source="old", seed=0)
    monkeypatch.setattr(np, "save", _fail_on_call(np.save, 7))
    with pytest.raises(OSError, match="no space left"):
        write_dataset(make_splits(6), tmp_path, source="new", seed=0)
    assert len(StoredDataset(tmp_path).samples("test")) == 8


def test_a_write_that_fails_half_way_does_not_open(tmp_path, monkeypatch):
    write_dataset(make_splits(8), tmp_path, source="old", seed=0)
    monkeypatch.setattr(os, "replace", _fail_on_call(os.replace, 3))
    with pytest.raises(OSError, match="no space left"):
        write_dataset(make_splits(6), tmp_path, source="new", seed=0)
    with pytest.raises(CollaboptError, match=r"dataset\.json is missing"):
        StoredDataset(tmp_path)


def test_a_directory_without_a_data_set_is_refused(tmp_path):
    with pytest.raises(CollaboptError, match=r"dataset\.json is missing or does not read") as caught:
        StoredDataset(tmp_path)
    assert caught.value.where == str(tmp_path)


def test_a_spec_that_does_not_read_is_refused(tmp_path):
    write_dataset(make_splits(), tmp_path, source="", seed=0)
    path = tmp_path / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "surplus": 1}))
    with pytest.raises(CollaboptError, match="does not read"):
        StoredDataset(tmp_path)


def test_an_unknown_split_is_named(tmp_path):
    write_dataset(make_splits(), tmp_path, source="", seed=0)
    with pytest.raises(CollaboptError, match="there is no split 'dev'") as caught:
        StoredDataset(tmp_path).samples("dev")
    assert "validation" in caught.value.todo
