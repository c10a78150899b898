"""Directories of image files, one folder a class."""

from pathlib import Path

import numpy as np

from collabopt.components.engine.datasets.image import decode_image
from collabopt.components.engine.datasets.source import Source, checked_samples
from collabopt.components.engine.datasets.split_folders import split_folders, visible_folders
from collabopt.components.engine.datasets.splits import Samples
from collabopt.components.engine.errors import CollaboptError

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp")


def read_image_folders(root: Path, shape: tuple[int, int, int], where: str) -> Source:
    """Reads `root/<class>/*`, or `root/{train,test,validation,calibration}/<class>/*`.

    Classes are the folders' names, sorted; a label is a class's place among those of `train`. Images become uint8
    `[n, *shape]`, 0..255, and are not scaled: a model that was trained on values from 0 to 1 needs the setting
    `scale` = 1/255, one trained on -1..1 needs `scale` = 1/127.5 and `offset` = -1.

    Args:
        root: The directory.
        shape: Height and width that images are resized to, and channels.
        where: The source as the user gave it, for messages.

    Raises:
        CollaboptError: There are no classes, a class has no images, `train` lacks a class, or an image is broken.
    """
    folders = split_folders(root, where) or {"train": root}
    classes = [folder.name for folder in visible_folders(folders["train"])]
    if not classes:
        raise CollaboptError(
            "there are no class folders here",
            where=str(folders["train"]),
            todo=f"put images ({', '.join(SUFFIXES)}) into one folder for every class",
        )
    splits = {name: _read_split(folder, classes, shape, where) for name, folder in folders.items()}
    return Source(splits.pop("train"), splits)


def _read_split(directory: Path, classes: list[str], shape: tuple[int, int, int], where: str) -> Samples:
    paths: list[Path] = []
    labels: list[int] = []
    for folder in visible_folders(directory):
        if folder.name not in classes:
            raise CollaboptError(
                f"class '{folder.name}' is not among those of train: {', '.join(classes)}",
                where=str(folder),
                todo="every class needs samples to train on",
            )
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
        if not found:
            raise CollaboptError(
                f"class '{folder.name}' has no images",
                where=str(folder),
                todo=f"remove the folder, or put images into it ({', '.join(SUFFIXES)})",
            )
        paths += found
        labels += [classes.index(folder.name)] * len(found)
    if not paths:
        raise CollaboptError(
            f"there are no class folders for {directory.name}",
            where=str(directory),
            todo="remove the folder, or put one folder of images for every class into it",
        )
    features = np.empty((len(paths), *shape), dtype=np.uint8)
    for row, path in enumerate(paths):
        features[row] = decode_image(path.read_bytes(), shape, name=str(path))
    return checked_samples(features, np.array(labels, dtype=np.int64), name=directory.name, where=where)
