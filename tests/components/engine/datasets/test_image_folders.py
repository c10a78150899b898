from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from collabopt.components.engine.datasets.load import load_dataset
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import DatasetSettings
from collabopt.components.engine.training.classification import TASK


def draw(directory: Path, count: int, colour: int, suffixes: tuple[str, ...] = (".png",)) -> None:
    directory.mkdir(parents=True)
    for number in range(count):
        name = f"{number:03d}{suffixes[number % len(suffixes)]}"
        Image.fromarray(np.full((12, 9, 3), colour, np.uint8)).save(directory / name)


def load(root: Path, **settings) -> StoredDataset:
    sizes = {"image_height": 8, "image_width": 6, **settings}
    load_dataset(str(root), root.parent / "out", DatasetSettings(**sizes), TASK)
    return StoredDataset(root.parent / "out")


def test_folders_are_classes_in_the_order_of_their_names(tmp_path):
    for name, colour in (("zebra", 200), ("ant", 0), ("cat", 100)):
        draw(tmp_path / "root" / name, 20, colour, (".png", ".jpg", ".JPEG", ".bmp"))
    (tmp_path / "root" / "ant" / "notes.txt").write_text("no image")
    draw(tmp_path / "root" / ".cache", 1, 255)
    stored = load(tmp_path / "root")
    assert sum(stored.spec.sizes.values()) == 60
    assert (stored.spec.feature_shape, stored.spec.feature_dtype, stored.spec.scale) == ((8, 6, 3), "uint8", 1.0)
    for split in stored.spec.sizes:
        samples = stored.samples(split)
        colours = samples.features.reshape(len(samples), -1).mean(axis=1)
        np.testing.assert_allclose(colours, samples.labels * 100, atol=2)
        assert set(samples.labels) == {0, 1, 2}


def test_grey_images_have_one_channel(tmp_path):
    draw(tmp_path / "root" / "a", 20, 10)
    assert load(tmp_path / "root", image_channels=1).spec.feature_shape == (8, 6, 1)


def test_images_are_scaled_on_request(tmp_path):
    draw(tmp_path / "root" / "a", 20, 255)
    assert load(tmp_path / "root", scale=1 / 127.5, offset=-1).inputs("test").max() == pytest.approx(1.0)


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_folders_of_splits_are_kept_apart(tmp_path, validation):
    colours = {"train": 10, "test": 20, validation: 30, "calibration": 40}
    for folder, colour in colours.items():
        for name in ("a", "b") if folder != "test" else ("b",):
            draw(tmp_path / "root" / folder / name, 6, colour)
    stored = load(tmp_path / "root")
    assert stored.spec.sizes == {"train": 12, "calibration": 12, "validation": 12, "test": 6}
    for folder, colour in colours.items():
        assert set(stored.samples("validation" if folder == "val" else folder).features.reshape(-1)) == {colour}
    assert set(stored.labels("test")) == {1}


@pytest.mark.parametrize("problem", ["text", "cut"])
def test_a_broken_image_is_named(tmp_path, problem):
    draw(tmp_path / "root" / "a", 20, 10)
    path = tmp_path / "root" / "a" / "007.png"
    path.write_bytes(b"text" if problem == "text" else path.read_bytes()[:45])
    with pytest.raises(CollaboptError, match="this image does not decode") as caught:
        load(tmp_path / "root")
    assert caught.value.where == str(path)
    assert not (tmp_path / "out").exists()


def _images_without_folder(root: Path) -> None:
    draw(root, 3, 10)


def _empty_class(root: Path) -> None:
    draw(root / "a", 3, 10)
    (root / "b").mkdir()


def _class_unknown_to_train(root: Path) -> None:
    draw(root / "train" / "a", 3, 10)
    draw(root / "test" / "b", 3, 10)


def _misspelt_split(root: Path) -> None:
    draw(root / "train" / "a", 3, 10)
    draw(root / "tset" / "a", 3, 10)


def _no_train(root: Path) -> None:
    draw(root / "test" / "a", 3, 10)


def _train_without_classes(root: Path) -> None:
    draw(root / "train", 3, 10)


def _empty_test(root: Path) -> None:
    draw(root / "train" / "a", 30, 10)
    (root / "test").mkdir()


@pytest.mark.parametrize(
    ("make", "what", "where", "todo"),
    [
        (_images_without_folder, "there are no class folders here", "root", "one folder for every class"),
        (_empty_class, "class 'b' has no images", "b", "remove the folder"),
        (_class_unknown_to_train, "class 'b' is not among those of train: a", "b", "samples to train on"),
        (_misspelt_split, "but 'tset' is no split", "root", "train, test, validation, calibration"),
        (_no_train, "but there is no 'train'", "root", "train is needed"),
        (_train_without_classes, "there are no class folders here", "train", "one folder for every class"),
        (_empty_test, "there are no class folders for test", "test", "remove the folder"),
    ],
)
def test_unfit_directories_are_refused(tmp_path, make, what, where, todo):
    make(tmp_path / "root")
    with pytest.raises(CollaboptError, match=what) as caught:
        load(tmp_path / "root")
    assert Path(caught.value.where).name == where
    assert todo in caught.value.todo
