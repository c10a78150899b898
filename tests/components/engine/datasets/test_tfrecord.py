import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collabopt.components.engine.datasets.load import load_dataset
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.classification import TASK

LABEL = {"key": "label", "dtype": "int64"}
FLOATS = {"features": {"key": "x", "dtype": "float32", "shape": [2, 2]}, "label": LABEL}


def example(**fields) -> bytes:
    import tensorflow as tf

    def field(values):
        if isinstance(values[0], bytes):
            return tf.train.Feature(bytes_list=tf.train.BytesList(value=values))
        if isinstance(values[0], float):
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        return tf.train.Feature(int64_list=tf.train.Int64List(value=values))

    features = tf.train.Features(feature={key: field(values) for key, values in fields.items()})
    return tf.train.Example(features=features).SerializeToString()


def floats(start: int, size: int) -> list[bytes]:
    return [example(x=[float(n), 0.0, 1.0, 2.0], label=[n % 2], other=[b"..."]) for n in range(start, start + size)]


def write(path: Path, records: list[bytes], compression: str = "") -> None:
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    with tf.io.TFRecordWriter(str(path), compression) as writer:
        for record in records:
            writer.write(record)


def load(source: Path, spec: dict, **settings) -> StoredDataset:
    output = source.parent / "out"
    load_dataset(str(source), output, DatasetSettings(feature_spec=spec, **settings), TASK)
    return StoredDataset(output)


def numbers(stored: StoredDataset, *splits: str) -> list[int]:
    return sorted(int(n) for split in splits for n in stored.samples(split).features[:, 0, 0])


EVERY = ("train", "calibration", "validation", "test")


@pytest.mark.parametrize("name", ["a.tfrecord", "a.tfrecord-00000-of-00001", "any.data"])
def test_a_file(tmp_path, name):
    write(tmp_path / name, floats(0, 50))
    stored = load(tmp_path / name, FLOATS)
    assert (stored.spec.feature_shape, stored.spec.feature_dtype, stored.spec.label_shape) == ((2, 2), "float32", ())
    assert numbers(stored, *EVERY) == list(range(50))
    np.testing.assert_array_equal(stored.samples("train").features[:, 0, 0] % 2, stored.labels("train"))


def test_a_compressed_file(tmp_path):
    write(tmp_path / "a.tfrecord.gz", floats(0, 50), "GZIP")
    assert numbers(load(tmp_path / "a.tfrecord.gz", FLOATS), *EVERY) == list(range(50))


@pytest.mark.parametrize("source", ["data", "data/b*.tfrecord"])
def test_a_directory_or_a_pattern(tmp_path, source):
    write(tmp_path / "data" / "b0.tfrecord", floats(0, 30))
    write(tmp_path / "data" / "b1.tfrecord", floats(30, 30))
    write(tmp_path / "data" / "c.tfrecord", floats(60, 30))
    assert numbers(load(tmp_path / source, FLOATS), *EVERY) == list(range(90 if source == "data" else 60))


def test_folders_of_splits(tmp_path):
    write(tmp_path / "data" / "train" / "a.tfrecord", floats(0, 30))
    write(tmp_path / "data" / "test" / "a.tfrecord", floats(30, 10))
    stored = load(tmp_path / "data", FLOATS)
    assert numbers(stored, "test") == list(range(30, 40))
    assert numbers(stored, "train", "validation", "calibration") == list(range(30))


def _png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def _tensor(values: np.ndarray) -> bytes:
    import tensorflow as tf

    return tf.io.serialize_tensor(values).numpy()


PIXELS = np.arange(36, dtype=np.uint8).reshape(4, 3, 3)


@pytest.mark.parametrize(
    ("field", "spec", "expected"),
    [
        (lambda: [_png(PIXELS)], {"encoding": "image", "shape": [4, 3, 3]}, PIXELS),
        (lambda: [_png(PIXELS)], {"encoding": "image"}, np.zeros((5, 7, 1), np.uint8)),
        (lambda: [PIXELS.tobytes()], {"encoding": "raw", "dtype": "uint8", "shape": [4, 3, 3]}, PIXELS),
        (
            lambda: [PIXELS.astype("<i2").tobytes()],
            {"encoding": "raw", "dtype": "int16", "shape": [36]},
            PIXELS.astype(np.int16).reshape(36),
        ),
        (lambda: [_tensor(PIXELS)], {"encoding": "tensor", "dtype": "uint8", "shape": [4, 3, 3]}, PIXELS),
        (lambda: PIXELS.reshape(-1).tolist(), {"dtype": "uint8", "shape": [4, 3, 3]}, PIXELS),
        (lambda: [0.5, 1.5], {"shape": [2]}, np.array([0.5, 1.5], np.float32)),
    ],
    ids=["image", "image at the settings' size", "raw bytes", "raw 16 bits", "tensor", "integers", "floats"],
)
def test_encodings(tmp_path, field, spec, expected):
    write(tmp_path / "a.tfrecord", [example(x=field(), label=[0])] * 30)
    settings = {"image_height": 5, "image_width": 7, "image_channels": 1}
    stored = load(tmp_path / "a.tfrecord", {"features": {"key": "x", **spec}, "label": LABEL}, **settings)
    found = stored.samples("train").features[0]
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    if expected.any():
        np.testing.assert_array_equal(found, expected)


def test_labels_may_be_floats(tmp_path):
    write(tmp_path / "a.tfrecord", [example(x=[float(n)] * 4, label=[n / 2, 0.0]) for n in range(50)])
    stored = load(tmp_path / "a.tfrecord", {**FLOATS, "label": {"key": "label", "shape": [2]}})
    np.testing.assert_array_equal(stored.labels("test")[:, 0], stored.samples("test").features[:, 0, 0] / 2)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ({}, "TFRecord files need the setting feature_spec"),
        ({"features": {"key": "x"}}, "feature_spec is not valid: label: Field required"),
        ({"features": {"dtype": "float32"}, "label": LABEL}, r"features\.key: Field required"),
        ({**FLOATS, "labels": LABEL}, "labels: Extra inputs are not permitted"),
        ({"features": {"key": "x", "size": [4]}, "label": LABEL}, r"features\.size: Extra inputs are not permitted"),
        (
            {"features": {"key": "x", "encoding": "jpeg"}, "label": LABEL},
            r"features\.encoding: Input should be 'values'",
        ),
        (
            {"features": {"key": "x", "dtype": "float33"}, "label": LABEL},
            r"features\.dtype: .*not a numeric NumPy type",
        ),
        ({"features": {"key": "x", "dtype": "str"}, "label": LABEL}, r"features\.dtype: .*not a numeric NumPy type"),
        ({"features": {"key": "x", "encoding": "image", "shape": [8, 8]}, "label": LABEL}, r"channels, not \[8, 8\]"),
        ({"features": {"key": "x", "encoding": "image", "shape": [8, 8, 4]}, "label": LABEL}, r"not \[8, 8, 4\]"),
    ],
)
def test_an_unfit_feature_spec_is_refused(tmp_path, spec, what):
    write(tmp_path / "a.tfrecord", floats(0, 3))
    with pytest.raises(CollaboptError, match=what) as caught:
        load(tmp_path / "a.tfrecord", spec)
    assert "set feature_spec to, for example," in caught.value.todo
    assert caught.value.where == str(tmp_path / "a.tfrecord")


def _features(**spec) -> dict:
    return {"features": {"key": "x", **spec}, "label": LABEL}


@pytest.mark.parametrize(
    ("record", "spec", "what"),
    [
        ({"y": [1.0], "label": [0]}, FLOATS, "the record has no field 'x'; it holds label, y"),
        ({"x": [1.0] * 4}, FLOATS, "the record has no field 'label'; it holds x"),
        ({"x": [1] * 4, "label": [0]}, FLOATS, r"field 'x' is a int64_list, but .* needs a float_list"),
        ({"x": [1.0] * 4, "label": [0]}, _features(encoding="image"), "is a float_list, but .* needs a bytes_list"),
        ({"x": [1.0] * 3, "label": [0]}, FLOATS, r"holds 3 values, which is not shape \[2, 2\] of float32"),
        ({"x": [300], "label": [0]}, _features(dtype="uint8", shape=[1]), "300..300, which does not fit uint8"),
        ({"x": [b"abc"], "label": [0]}, _features(encoding="raw", shape=[1]), "holds 3 bytes, which is not shape"),
        ({"x": [b"a", b"b"], "label": [0]}, _features(encoding="raw"), "holds 2 byte strings, not one"),
        ({"x": [b"abc"], "label": [0]}, _features(encoding="tensor"), "no serialized tensor of float32"),
        ({"x": [b"abc"], "label": [0]}, _features(encoding="image"), "this image does not decode"),
    ],
)
def test_a_record_that_does_not_match_is_named(tmp_path, record, spec, what):
    good = example(x=[1.0] * 4, label=[1])
    write(tmp_path / "a.tfrecord", [good, good, example(**record)] if spec is FLOATS else [example(**record)])
    with pytest.raises(CollaboptError, match=what) as caught:
        load(tmp_path / "a.tfrecord", spec)
    assert f"{tmp_path / 'a.tfrecord'}, record {2 if spec is FLOATS else 0}" in caught.value.where


def test_a_tensor_of_another_shape_or_type_is_refused(tmp_path):
    write(tmp_path / "a.tfrecord", [example(x=[_tensor(PIXELS)], label=[0])])
    with pytest.raises(CollaboptError, match=r"a tensor of shape \[4, 3, 3\], which is not shape \[3, 4, 3\]"):
        load(tmp_path / "a.tfrecord", _features(encoding="tensor", dtype="uint8", shape=[3, 4, 3]))
    with pytest.raises(CollaboptError, match="no serialized tensor of int32"):
        load(tmp_path / "a.tfrecord", _features(encoding="tensor", dtype="int32", shape=[4, 3, 3]))


def test_a_damaged_file_is_named(tmp_path):
    write(tmp_path / "data" / "a.tfrecord", floats(0, 10))
    write(tmp_path / "data" / "b.tfrecord", floats(0, 10))
    path = tmp_path / "data" / "b.tfrecord"
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(CollaboptError, match="damaged or no TFRecord file") as caught:
        load(tmp_path / "data", FLOATS)
    assert caught.value.where == str(path)


def test_a_file_of_something_else_is_refused(tmp_path):
    (tmp_path / "a.tfrecord").write_bytes(b"something else, which is long enough")
    with pytest.raises(CollaboptError, match="damaged or no TFRecord file"):
        load(tmp_path / "a.tfrecord", FLOATS)
    write(tmp_path / "b.tfrecord", [b"no example"])
    with pytest.raises(CollaboptError, match=r"a record is no tf\.train\.Example"):
        load(tmp_path / "b.tfrecord", FLOATS)


def test_an_empty_file_is_refused(tmp_path):
    write(tmp_path / "a.tfrecord", [])
    with pytest.raises(CollaboptError, match="there are no records for train"):
        load(tmp_path / "a.tfrecord", FLOATS)


def test_a_split_folder_without_files_is_named(tmp_path):
    write(tmp_path / "data" / "train" / "a.tfrecord", floats(0, 30))
    (tmp_path / "data" / "test").mkdir()
    with pytest.raises(CollaboptError, match="there are no TFRecord files for test"):
        load(tmp_path / "data", FLOATS)
