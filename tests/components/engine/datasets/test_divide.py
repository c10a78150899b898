import numpy as np
import pytest

from collabopt.components.engine.datasets.divide import divide
from collabopt.components.engine.datasets.source import Source
from collabopt.components.engine.datasets.splits import SPLIT_NAMES, Samples
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings


def numbered(size: int, classes: int = 10, start: int = 0) -> Samples:
    """Samples whose feature is a number that no other sample has."""
    rows = np.arange(start, start + size)
    return Samples(rows[:, np.newaxis], rows % classes)


def members(splits, name: str) -> list[int]:
    return splits.samples[name].features[:, 0].tolist()


def test_every_sample_is_in_exactly_one_split():
    splits = divide(Source(numbered(1000)), DatasetSettings(), "here")
    everything = [row for name in SPLIT_NAMES for row in members(splits, name)]
    assert sorted(everything) == list(range(1000))


def test_the_sizes_are_those_of_the_shares():
    settings = DatasetSettings(test_share=0.2, validation_share=0.1, calibration_share=0.25, calibration_samples=150)
    splits = divide(Source(numbered(1000)), settings, "here")
    sizes = {name: len(splits.samples[name]) for name in SPLIT_NAMES}
    assert sizes == {"test": 200, "validation": 80, "calibration": 150, "train": 570}


def test_labels_stay_with_their_features():
    splits = divide(Source(numbered(500)), DatasetSettings(), "here")
    for samples in splits.samples.values():
        np.testing.assert_array_equal(samples.features[:, 0] % 10, samples.labels)


def test_the_seed_decides_the_splits():
    first, again, other = (divide(Source(numbered(200)), DatasetSettings(seed=seed), "here") for seed in (7, 7, 8))
    for name in SPLIT_NAMES:
        assert members(first, name) == members(again, name)
        assert members(first, name) != members(other, name)


@pytest.mark.parametrize("train_share", [0.02, 0.3, 0.99])
def test_a_train_share_changes_train_alone(train_share):
    whole = divide(Source(numbered(1000)), DatasetSettings(), "here")
    part = divide(Source(numbered(1000)), DatasetSettings(train_share=train_share), "here")
    for name in ("test", "validation", "calibration"):
        assert members(part, name) == members(whole, name)
    assert len(part.samples["train"]) == round(len(whole.samples["train"]) * train_share)
    assert set(members(part, "train")) < set(members(whole, "train"))


def test_splits_of_the_source_are_kept_whole_and_apart():
    own = {
        "test": numbered(30, start=1000),
        "validation": numbered(20, start=2000),
        "calibration": numbered(10, start=3000),
    }
    splits = divide(Source(numbered(100), own), DatasetSettings(), "here")
    assert sorted(members(splits, "train")) == list(range(100))
    for name, samples in own.items():
        assert sorted(members(splits, name)) == samples.features[:, 0].tolist()


def test_a_test_split_of_the_source_leaves_the_rest_to_be_drawn():
    splits = divide(Source(numbered(100), {"test": numbered(30, start=1000)}), DatasetSettings(), "here")
    assert {name: len(splits.samples[name]) for name in SPLIT_NAMES} == {
        "train": 80,
        "calibration": 10,
        "validation": 10,
        "test": 30,
    }
    drawn = [row for name in ("train", "calibration", "validation") for row in members(splits, name)]
    assert sorted(drawn) == list(range(100))


def test_classes_are_balanced_in_every_split_of_a_small_set():
    labels = np.repeat([0, 1, 2, 3], [60, 30, 20, 10])
    source = Source(Samples(np.arange(120)[:, np.newaxis], labels))
    for seed in range(20):
        splits = divide(source, DatasetSettings(seed=seed), "here")
        for name in SPLIT_NAMES:
            found = np.bincount(splits.samples[name].labels, minlength=4)
            expected = np.bincount(labels) * len(splits.samples[name]) / 120
            assert np.abs(found - expected).max() <= 2, (seed, name, found)


def test_the_first_samples_of_a_split_are_a_fair_choice_even_from_a_sorted_source():
    labels = np.repeat(np.arange(5), 100)
    test = Samples(np.arange(500)[:, np.newaxis], labels)
    splits = divide(Source(numbered(1000, classes=5), {"test": test}), DatasetSettings(), "here")
    for name in SPLIT_NAMES:
        assert np.bincount(splits.samples[name].labels[:40], minlength=5).min() >= 6, name


@pytest.mark.parametrize(
    "labels",
    [np.linspace(0, 1, 300), np.arange(300), np.arange(600).reshape(300, 2), np.array([0] * 299 + [1])],
    ids=["floats", "an integer for every sample", "vectors", "a class of one"],
)
def test_labels_that_cannot_be_balanced_are_split_at_random(labels):
    splits = divide(Source(Samples(np.arange(300)[:, np.newaxis], labels)), DatasetSettings(), "here")
    everything = [row for name in SPLIT_NAMES for row in members(splits, name)]
    assert sorted(everything) == list(range(300))
    assert 100 < np.mean(members(splits, "train")) < 200


@pytest.mark.parametrize(
    ("size", "settings", "empty"),
    [
        (2, {}, "test"),
        (5, {}, "validation"),
        (40, {"calibration_share": 0.01}, "calibration"),
        (100, {"validation_share": 0.6, "calibration_share": 0.6}, "train"),
        (40, {"train_share": 0.01}, "train"),
        (0, {}, "test"),
    ],
)
def test_a_split_that_would_be_empty_is_named(size, settings, empty):
    with pytest.raises(CollaboptError, match=f"the {empty} split is empty: {size} samples are too few") as caught:
        divide(Source(numbered(size)), DatasetSettings(**settings), "the source")
    assert caught.value.where == "the source"
    assert f"supply a {empty} split" in caught.value.todo
