"""Where releases are kept: what a store must be able to do, and how one is opened."""

from pathlib import Path
from typing import Protocol
from urllib.parse import unquote, urlsplit

from collabopt.components.engine.errors import CollaboptError

GCS_SCHEME = "gs://"
FILE_SCHEME = "file://"


class Conflict(CollaboptError):
    """An object that was to be replaced is no longer the one that was read."""


class ObjectStore(Protocol):
    """Named objects, written whole or not at all.

    Attributes:
        uri: Address of the store; the objects' names follow it after a `/`.
    """

    @property
    def uri(self) -> str:
        """Address of the store."""
        ...

    def read(self, name: str) -> tuple[bytes, int] | None:
        """Content and generation of an object; None where there is none.

        Raises:
            CollaboptError: The store cannot be read.
        """
        ...

    def create(self, name: str, content: bytes | Path, content_type: str) -> None:
        """Writes an object that is never changed again. One that has the same content already is as good.

        Args:
            name: Name of the object.
            content: Its bytes, or a file that holds them.
            content_type: MIME type.

        Raises:
            CollaboptError: There is another content under this name, or the store cannot be written.
        """
        ...

    def replace(self, name: str, content: bytes, generation: int) -> int:
        """Writes a small JSON object, if it still is what the caller has read.

        Repeating a write that has landed is no conflict.

        Args:
            name: Name of the object.
            content: Its new content.
            generation: Generation that was read; 0 where there was no object.

        Returns:
            The generation of the new content.

        Raises:
            Conflict: Somebody else has written the object.
            CollaboptError: The store cannot be written.
        """
        ...

    def names(self, prefix: str) -> list[str]:
        """Names of all objects that begin with a prefix, sorted.

        Raises:
            CollaboptError: The store cannot be read.
        """
        ...


def open_store(uri: str) -> ObjectStore:
    """Opens a store; a local directory is made when it is first written to.

    Args:
        uri: `gs://bucket/prefix`, `file:///directory`, or the path of a local directory.

    Raises:
        CollaboptError: The address is of another kind or not complete, or there are no credentials for Cloud Storage.
    """
    if uri.startswith(GCS_SCHEME):
        from collabopt.components.engine.release.bucket import open_bucket

        return open_bucket(uri)
    from collabopt.components.engine.release.directory import DirectoryStore

    if uri.startswith(FILE_SCHEME):
        parts = urlsplit(uri)
        if parts.netloc not in ("", "localhost") or not parts.path:
            raise CollaboptError("this is not a local directory", where=uri, todo="write it as file:///directory")
        return DirectoryStore(Path(unquote(parts.path)))
    if "://" in uri or not uri:
        raise CollaboptError(
            f"releases cannot be kept in {uri.partition('://')[0]}://" if uri else "no place for releases is given",
            where=uri,
            todo="pass gs://bucket/prefix or a local directory",
        )
    return DirectoryStore(Path(uri).expanduser().absolute())


def conflict(name: str, uri: str) -> Conflict:
    """The error for an object that somebody else has written."""
    return Conflict(
        f"'{name}' has been changed by another process in the meantime",
        where=uri,
        todo="run the gate again: it decides anew, against the present champion",
    )


def occupied(name: str, uri: str) -> CollaboptError:
    """The error for an object whose name is taken by another content."""
    return CollaboptError(
        f"there is another content under the name '{name}', which is never changed once it is written",
        where=uri,
        todo="find out who wrote it; delete it if it is not wanted, then run the gate again",
    )
