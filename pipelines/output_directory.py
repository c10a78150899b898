"""The directory a run leaves behind: `leaves/`, what the gate wrote, and `logs/`, replaced as a whole or not at all.

While a run is on, everything unfinished lies in a hidden working directory inside, so that publishing is a matter of
renames on one file system. Files that are not ours are kept where they are.
"""

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import GATE_FILES, PACKED_FILE, REPORT_FILE, SKIPPED_FILE, TFLITE_FILE
from collabopt.components.engine.search.records import SEARCH_FILES

LEAVES = "leaves"
LOGS = "logs"
LEAF_FILES = (TFLITE_FILE, PACKED_FILE, REPORT_FILE, "model_data.cc", "model_data.h")

_WORK_PREFIX = ".work-"
_STAGED = "staged"
_LEAVING = "leaving"
_PREVIOUS = "previous"
_REPLACED = "replaced"
_FILES = (*GATE_FILES, *SEARCH_FILES)
_RESULT = (LEAVES, *_FILES)


@dataclass(frozen=True)
class OutputDirectory:
    """An output directory that this process alone writes to.

    Attributes:
        path: The directory.
        work: Working directory of the run; removed at its end.
    """

    path: Path
    work: Path

    @property
    def logs(self) -> Path:
        """Where every stage writes its log."""
        return self.path / LOGS

    def clear_logs(self, names: Iterable[str]) -> None:
        """Removes the logs of an earlier run, and nothing else."""
        self.logs.mkdir(exist_ok=True)
        for name in names:
            (self.logs / f"{name}.log").unlink(missing_ok=True)

    def publish(self, leaves: Mapping[str, Path], decision: Path) -> None:
        """Replaces the earlier result by this one.

        Args:
            leaves: Stage -> directory with its files, or what it has left untrained, inside the working directory.
            decision: The gate's `decision.json`, inside the working directory; beside it what else the gate wrote, and
                in a search its summary and policy.
        """
        staged = self.work / _STAGED
        for stage, source in leaves.items():
            target = staged / LEAVES / stage
            target.mkdir(parents=True)
            for name in (SKIPPED_FILE,) if (source / SKIPPED_FILE).is_file() else LEAF_FILES:
                os.rename(source / name, target / name)
        (staged / LEAVES).mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            if (decision.parent / name).exists():
                os.rename(decision.parent / name, staged / name)
        for foreign in _foreign_files(self.path / LEAVES):
            copy = staged / LEAVES / foreign
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(self.path / LEAVES / foreign, copy, follow_symlinks=False)
        _swap(staged, self.path, self.work)
        os.rename(self.work / _PREVIOUS, self.work / _REPLACED)


@contextlib.contextmanager
def open_output(directory: Path) -> Iterator[OutputDirectory]:
    """Locks an output directory for one run and gives it a working directory.

    Leftovers of a run that was killed are cleared away, and an exchange it was killed in is undone.

    Raises:
        CollaboptError: Another run is writing to the directory, or it cannot be made.
    """
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise CollaboptError(
            f"the output directory cannot be made: {error.strerror}",
            where=str(directory),
            todo="choose another directory with --output",
        ) from error
    try:
        _lock(lock, directory)
        for stale in directory.glob(f"{_WORK_PREFIX}*"):
            _undo_exchange(stale, directory)
            shutil.rmtree(stale)
        work = Path(tempfile.mkdtemp(prefix=_WORK_PREFIX, dir=directory))
        try:
            yield OutputDirectory(directory, work)
        finally:
            shutil.rmtree(work)
    finally:
        os.close(lock)


def check_output(directory: Path) -> None:
    """Checks that a run could write to a directory, without writing.

    Raises:
        CollaboptError: It is a file, lies below one, or may not be written to.
    """
    for path in (directory, directory / LEAVES, directory / LOGS):
        if path.exists() and not path.is_dir():
            raise CollaboptError(
                "a file is where the output directory belongs",
                where=str(path),
                todo="move it, or pass another --output",
            )
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise CollaboptError(
            "the output directory cannot be written", where=str(existing), todo="pass another --output"
        )


def _lock(descriptor: int, directory: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise CollaboptError(
            "another run is writing to this output directory",
            where=str(directory),
            todo="wait for it to end, or pass another --output",
        ) from error


def _swap(staged: Path, output: Path, work: Path) -> None:
    (work / _LEAVING).mkdir()
    for name in _RESULT:
        if (output / name).exists():
            os.rename(output / name, work / _LEAVING / name)
    os.rename(work / _LEAVING, work / _PREVIOUS)
    for name in _RESULT:
        if (staged / name).exists():
            os.rename(staged / name, output / name)


def _undo_exchange(stale: Path, output: Path) -> None:
    previous = stale / _PREVIOUS
    for name in _RESULT if previous.is_dir() else ():
        if (output / name).exists():  # the new one had been moved in
            os.rename(output / name, stale / f"withdrawn-{name}")
    for name in _RESULT:
        for left in (previous / name, stale / _LEAVING / name):
            if left.exists():
                os.rename(left, output / name)


def _foreign_files(leaves: Path) -> list[Path]:
    """Files below `leaves/`, relative to it, that no run has written."""
    files = [path.relative_to(leaves) for path in leaves.rglob("*") if path.is_symlink() or not path.is_dir()]
    return [file for file in files if len(file.parts) != 2 or file.name not in (*LEAF_FILES, SKIPPED_FILE)]
