"""Folders named after splits: `root/{train,test,validation,calibration}`."""

from pathlib import Path

from collabopt.components.engine.errors import CollaboptError

FOLDERS = {
    "train": "train",
    "test": "test",
    "validation": "validation",
    "val": "validation",
    "calibration": "calibration",
}


def visible_folders(directory: Path) -> list[Path]:
    """Folders in a directory, sorted by name, without hidden ones."""
    return sorted(entry for entry in directory.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def split_folders(root: Path, where: str) -> dict[str, Path]:
    """Split -> folder, where `root` has a folder `train` and only folders named after splits beside it; else empty.

    Raises:
        CollaboptError: There is `train` or `test` beside a folder that is no split, or `test` without `train`.
    """
    folders = {folder.name: folder for folder in visible_folders(root)}
    if not {"train", "test"} & set(folders):
        return {}
    strangers = sorted(set(folders) - set(FOLDERS))
    if strangers or "train" not in folders:
        problem = f"'{strangers[0]}' is no split" if strangers else "there is no 'train'"
        raise CollaboptError(
            f"folders are named after splits, but {problem}",
            where=where,
            todo="name them train, test, validation, calibration (train is needed), or have one folder a class",
        )
    return {FOLDERS[name]: folder for name, folder in folders.items()}
