import numpy as np
import pytest

from collabopt.components.engine.datasets.splits import SPLIT_NAMES, Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset

SIZE = 70
PATHS = pytest.mark.parametrize("in_memory_bytes", [2**20, 0], ids=["from memory", "from disk"])


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    directory = tmp_path_factory.mktemp("data")
    random = np.random.default_rng(0)
    samples = Samples(random.integers(0, 256, (SIZE, 3, 2), dtype=np.uint8), np.arange(SIZE))
    write_dataset(Splits(dict.fromkeys(SPLIT_NAMES, samples), scale=1 / 255, offset=-0.3), directory, source="", seed=0)
    return directory


def epoch(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


@PATHS
def test_batches_hold_every_sample_once_in_the_stored_order(directory, in_memory_bytes):
    stored = StoredDataset(directory, in_memory_bytes=in_memory_bytes)
    batches = list(stored.batches("test", 32).as_numpy_iterator())
    assert [len(labels) for _, labels in batches] == [32, 32, 6]
    features = np.concatenate([features for features, _ in batches])
    assert features.dtype == np.float32
    np.testing.assert_array_equal(features, stored.inputs("test"))
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in batches]), stored.labels("test"))


@PATHS
def test_shapes_and_types_are_static(directory, in_memory_bytes):
    features, labels = StoredDataset(directory, in_memory_bytes=in_memory_bytes).batches("train", 8).element_spec
    assert (features.shape.as_list(), features.dtype.name) == ([None, 3, 2], "float32")
    assert (labels.shape.as_list(), labels.dtype.name) == ([None], "int64")


@PATHS
def test_the_number_of_batches_is_known(directory, in_memory_bytes):
    assert int(StoredDataset(directory, in_memory_bytes=in_memory_bytes).batches("train", 32).cardinality()) == 3


@PATHS
def test_shuffling_repeats_with_its_seed_over_epochs(directory, in_memory_bytes):
    stored = StoredDataset(directory, in_memory_bytes=in_memory_bytes)
    first, again, other = (stored.batches("train", 32, shuffle_seed=seed) for seed in (0, 0, 1))
    epochs = [epoch(first), epoch(first)]
    assert epochs == [epoch(again), epoch(again)]
    assert epochs[0] != epochs[1]
    assert epochs[0] != epoch(other)
    for each in epochs:
        assert each != list(range(SIZE))
        assert sorted(each) == list(range(SIZE))


def test_both_paths_give_the_same_batches(directory):
    small, large = (
        StoredDataset(directory, in_memory_bytes=size).batches("train", 16, shuffle_seed=4) for size in (2**20, 0)
    )
    for _ in range(2):
        for ours, theirs in zip(small.as_numpy_iterator(), large.as_numpy_iterator(), strict=True):
            np.testing.assert_array_equal(ours[0], theirs[0])
            np.testing.assert_array_equal(ours[1], theirs[1])


def test_a_large_split_is_read_where_it_lies(directory, tmp_path):
    """What is changed on disk after the batches are made is seen from disk, and not from memory."""
    stored = StoredDataset(directory)
    write_dataset(Splits({name: stored.samples(name) for name in SPLIT_NAMES}, scale=1.0), tmp_path, source="", seed=0)
    from_memory, from_disk = (
        StoredDataset(tmp_path, in_memory_bytes=size).batches("train", SIZE)
        for size in (SIZE * 6 * 4, SIZE * 6 * 4 - 1)
    )
    features = np.load(tmp_path / "train-features.npy", mmap_mode="r+")
    before = int(features[0, 0, 0])
    features[0, 0, 0] = before ^ 1
    features.flush()
    values = [float(next(batches.as_numpy_iterator())[0][0, 0, 0]) for batches in (from_memory, from_disk)]
    assert values == [before, before ^ 1]


@PATHS
def test_augmentation_is_applied_where_it_is_asked_for(directory, in_memory_bytes):
    stored = StoredDataset(directory, in_memory_bytes=in_memory_bytes)
    batches = stored.batches("train", 32, augment=lambda features, labels: (features + 10.0, labels))
    features = np.concatenate([features for features, _ in batches.as_numpy_iterator()])
    np.testing.assert_allclose(features, stored.inputs("train") + 10, atol=1e-5)
