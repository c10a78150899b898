import gzip
import sys
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.datasets.load import load_dataset
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.classification import TASK


def load(source: str, output: Path, **settings) -> StoredDataset:
    load_dataset(source, output, DatasetSettings(**settings), TASK)
    return StoredDataset(output)


def idx(values: np.ndarray) -> bytes:
    lengths = b"".join(length.to_bytes(4, "big") for length in values.shape)
    return bytes((0, 0, 8, values.ndim)) + lengths + values.astype(np.uint8).tobytes()


@pytest.fixture
def fashion_mnist(tmp_path, monkeypatch):
    """A tiny set in Fashion-MNIST's format: the first pixel of every image is the image's number."""
    directory = tmp_path / "fashion-mnist"
    directory.mkdir()
    for prefix, size, start in (("train", 100, 0), ("t10k", 20, 100)):
        images = np.full((size, 28, 28), 255)
        images[:, 0, 0] = np.arange(start, start + size)
        (directory / f"{prefix}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (directory / f"{prefix}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(images[:, 0, 0] % 10)))
    monkeypatch.setenv("COLLABOPT_FASHION_MNIST", str(directory))
    return directory


def test_digits(tmp_path):
    stored = load("example://digits", tmp_path)
    assert sum(stored.spec.sizes.values()) == 1797
    assert (stored.spec.feature_shape, stored.spec.feature_dtype, stored.spec.label_shape) == ((8, 8, 1), "uint8", ())
    inputs = stored.inputs("train")
    assert (inputs.min(), inputs.max()) == (0.0, 1.0)
    for split in stored.spec.sizes:
        counts = np.bincount(stored.labels(split), minlength=10)
        assert counts.max() - counts.min() <= 5, split
        TASK.check(stored.labels(split), (10,))


def test_digits_come_out_the_same_every_time(tmp_path):
    first, again, other = (load("example://digits", tmp_path / str(n), seed=n // 2).spec.digest for n in range(3))
    assert first == again != other


def test_settings_replace_the_scale_of_an_example(tmp_path):
    stored = load("example://digits", tmp_path, scale=1 / 8, offset=-1.0)
    assert (stored.spec.scale, stored.spec.offset) == (1 / 8, -1.0)
    assert (stored.inputs("train").min(), stored.inputs("train").max()) == (-1.0, 1.0)


def test_fashion_mnist_keeps_its_test_split(fashion_mnist, tmp_path):
    stored = load("example://fashion-mnist", tmp_path / "out")
    assert stored.spec.sizes == {"train": 80, "calibration": 10, "validation": 10, "test": 20}
    assert (stored.spec.feature_shape, stored.spec.feature_dtype) == ((28, 28, 1), "uint8")
    assert sorted(stored.samples("test").features[:, 0, 0, 0]) == list(range(100, 120))
    np.testing.assert_array_equal(stored.samples("test").features[:, 0, 0, 0] % 10, stored.labels("test"))
    assert stored.inputs("test").max() == 1.0


@pytest.mark.skipif(not Path("/usr/share/datasets/fashion-mnist").is_dir(), reason="dataset-fashion-mnist is missing")
def test_the_packaged_fashion_mnist_reads(tmp_path, monkeypatch):
    monkeypatch.delenv("COLLABOPT_FASHION_MNIST", raising=False)
    spec = load("example://fashion-mnist", tmp_path, train_share=0.1).spec
    assert spec.sizes == {"train": 5350, "calibration": 500, "validation": 6000, "test": 10000}


def test_a_machine_without_fashion_mnist_is_told_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv("COLLABOPT_FASHION_MNIST", str(tmp_path / "nowhere"))
    with pytest.raises(CollaboptError, match="not on this machine") as caught:
        load("example://fashion-mnist", tmp_path / "out")
    assert "apt-get install dataset-fashion-mnist" in caught.value.todo
    assert "COLLABOPT_FASHION_MNIST" in caught.value.todo
    assert str(tmp_path / "nowhere") in caught.value.where


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"no gzip", "the file is damaged: Not a gzipped file"),
        (gzip.compress(idx(np.zeros((100, 28, 28))))[:-20], "the file is damaged"),
        (gzip.compress(idx(np.zeros((100, 28, 28)))[:-1]), "not an IDX file of 3 axes"),
        (gzip.compress(idx(np.zeros(100))), "not an IDX file of 3 axes"),
        (gzip.compress(bytes((0, 0, 13)) + idx(np.zeros((100, 28, 28)))[3:]), "not an IDX file of 3 axes"),
        (gzip.compress(b""), "not an IDX file of 3 axes"),
    ],
    ids=["no gzip", "cut gzip", "cut values", "other axes", "other type", "empty"],
)
def test_damaged_files_are_named(fashion_mnist, tmp_path, content, message):
    path = fashion_mnist / "train-images-idx3-ubyte.gz"
    path.write_bytes(content)
    with pytest.raises(CollaboptError, match=message) as caught:
        load("example://fashion-mnist", tmp_path / "out")
    assert caught.value.where == str(path)


def test_an_unknown_example_is_told_which_there_are(tmp_path):
    with pytest.raises(CollaboptError, match="there is no example 'mnist'") as caught:
        load("example://mnist", tmp_path)
    assert caught.value.todo == "examples: example://digits, example://fashion-mnist"


def test_archives_and_examples_do_not_need_tensorflow(tmp_path):
    import subprocess

    script = (
        "import sys, pathlib, numpy\n"
        "from collabopt.components.engine.datasets.load import load_dataset\n"
        "from collabopt.components.engine.settings import DatasetSettings\n"
        "from collabopt.components.engine.training.classification import TASK\n"
        "directory = pathlib.Path(sys.argv[1])\n"
        "numpy.savez(directory / 'a.npz', x=numpy.zeros((50, 2)), y=numpy.zeros(50, int))\n"
        "for source in ('example://digits', str(directory / 'a.npz')):\n"
        "    load_dataset(source, directory / 'out', DatasetSettings(), TASK)\n"
        "assert not {'tensorflow', 'tf_keras'} & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
