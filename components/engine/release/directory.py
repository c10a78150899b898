"""A store in a local directory: what a bucket does, with files."""

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.checksums import sha256_of
from collabopt.components.engine.release.names import check_object_name
from collabopt.components.engine.release.object_store import conflict, occupied

# Hidden, which names of objects never are.
_LOCK_FILE = ".lock"
_UNFINISHED_FILE = ".unfinished"


@dataclass(frozen=True)
class DirectoryStore:
    """Objects as files below a directory.

    One process writes at a time, under a lock that ends with it, and always to the same unfinished file, which is
    then renamed: whatever a killed process leaves, the next one overwrites. Readers need no lock.

    Attributes:
        root: The directory, made when it is first written to.
    """

    root: Path

    @property
    def uri(self) -> str:
        """Path of the directory."""
        return str(self.root)

    def read(self, name: str) -> tuple[bytes, int] | None:
        """See `ObjectStore.read`."""
        with self._errors("read"):
            try:
                content = self._path(name).read_bytes()
            except FileNotFoundError:
                return None
        return content, _generation(content)

    def create(self, name: str, content: bytes | Path, content_type: str) -> None:
        """See `ObjectStore.create`."""
        path = self._path(name)
        with self._errors("written"), self._one_at_a_time():
            if path.exists():
                digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else sha256_of(content)
                if sha256_of(path) != digest:
                    raise occupied(name, self.uri)
                return
            self._write(path, content)

    def replace(self, name: str, content: bytes, generation: int) -> int:
        """See `ObjectStore.replace`."""
        path = self._path(name)
        with self._errors("written"), self._one_at_a_time():
            present = path.read_bytes() if path.exists() else None
            if present != content:
                if generation != (0 if present is None else _generation(present)):
                    raise conflict(name, self.uri)
                self._write(path, content)
        return _generation(content)

    def names(self, prefix: str) -> list[str]:
        """See `ObjectStore.names`."""
        with self._errors("read"):
            files = (path for path in self.root.rglob("*") if path.is_file() and not path.name.startswith("."))
            names = (path.relative_to(self.root).as_posix() for path in files)
            return sorted(name for name in names if name.startswith(prefix))

    def _path(self, name: str) -> Path:
        check_object_name(name)
        return self.root / name

    def _write(self, path: Path, content: bytes | Path) -> None:
        unfinished = self.root / _UNFINISHED_FILE
        with open(unfinished, "wb") as file:
            if isinstance(content, bytes):
                file.write(content)
            else:
                with open(content, "rb") as source:
                    shutil.copyfileobj(source, file)
            file.flush()
            os.fsync(file.fileno())
        path.parent.mkdir(parents=True, exist_ok=True)
        os.replace(unfinished, path)
        for directory in (path.parent, *path.parent.parents):
            _sync_directory(directory)
            if directory == self.root:
                break

    @contextlib.contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        import fcntl

        self.root.mkdir(parents=True, exist_ok=True)
        with open(self.root / _LOCK_FILE, "ab") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    @contextlib.contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CollaboptError(
                f"the directory of the releases cannot be {done}: {error.strerror}",
                where=str(error.filename or self.root),
                todo="check its permissions and the space left, then run the gate again",
            ) from error


def _generation(content: bytes) -> int:
    """From the content, so that no counter can be lost: who has read the same content has read the same state."""
    return int.from_bytes(hashlib.sha256(content).digest()[:7], "big") + 1


def _sync_directory(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
