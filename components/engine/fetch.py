"""Sources of data and models, made local: a path stays where it is, a `gs://` URI is downloaded."""

import contextlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from collabopt.components.engine.errors import CollaboptError

if TYPE_CHECKING:
    from google.cloud.storage import Blob

GCS_SCHEME = "gs://"
# Models and data that collabopt makes itself.
EXAMPLE_SCHEME = "example://"
# Data that the task brings.
TASK_SOURCE = "task"
TASK_SOURCES = (TASK_SOURCE, f"{TASK_SOURCE}://")


def local_copy(uri: str, directory: Path) -> Path:
    """Makes a source local.

    Args:
        uri: A local path, or `gs://bucket/path`; the path names one object, or a prefix that stands for a directory.
        directory: Where a download goes; a local path is not copied. Created if it does not exist.

    Returns:
        The local file or directory; a download keeps the last part of its path as its name.

    Raises:
        CollaboptError: There is nothing at the source, it may not be read, or its scheme is not supported.
    """
    if not uri.startswith(GCS_SCHEME):
        return local_path(uri)
    objects = stored_objects(uri)
    target = Path(directory) / PurePosixPath(uri.rstrip("/")).name
    with _storage_errors(uri):
        for name, blob in objects.items():
            _download(blob, target / name, uri)
    return target


def local_path(uri: str) -> Path:
    """The file or directory that a source names, which must be there.

    Raises:
        CollaboptError: There is none, or its scheme is not supported.
    """
    if "://" in uri:
        raise CollaboptError(
            f"sources of the kind {uri.partition('://')[0]}:// are not supported",
            where=uri,
            todo="pass a local path or gs://bucket/path",
        )
    path = Path(uri).expanduser()
    if not path.exists():
        raise CollaboptError("this path does not exist", where=uri, todo="check the path; remote files need gs://")
    return path


def stored_objects(uri: str) -> "dict[str, Blob]":
    """The objects that a `gs://` URI stands for, as they are now; nothing is downloaded.

    Args:
        uri: `gs://bucket/path`; the path names one object, or a prefix that stands for a directory.

    Returns:
        Name below the URI, "" for the one object that the URI itself names -> the object with its generation and
        checksums.

    Raises:
        CollaboptError: There is nothing at the URI, or it may not be read.
    """
    from google.cloud import storage

    bucket, name = _bucket_and_name(uri)
    with _storage_errors(uri):
        client = storage.Client()
        blob = client.bucket(bucket).get_blob(name)
        if blob is not None:
            return {"": blob}
        found = {}
        for blob in client.list_blobs(bucket, prefix=f"{name}/"):
            relative = PurePosixPath(blob.name.removeprefix(f"{name}/"))
            if blob.name.endswith("/"):  # consoles mark an empty directory with such an object
                continue
            if relative.is_absolute() or ".." in relative.parts:
                raise CollaboptError(f"object '{blob.name}' would leave the download directory", where=uri)
            found[str(relative)] = blob
    if not found:
        raise CollaboptError(
            f"bucket '{bucket}' has no object '{name}', nor any below '{name}/'",
            where=uri,
            todo="check the path; names are case-sensitive",
        )
    return found


def _bucket_and_name(uri: str) -> tuple[str, str]:
    bucket, _, name = uri.removeprefix(GCS_SCHEME).partition("/")
    name = name.rstrip("/")
    if not bucket or not name:
        raise CollaboptError("this URI lacks a bucket or a path", where=uri, todo="write it as gs://bucket/path")
    return bucket, name


def _download(blob: "Blob", path: Path, uri: str) -> None:
    from google.api_core.exceptions import NotFound

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        blob.download_to_filename(str(path))  # the generation that was listed, whatever has come after it
    except NotFound as error:
        raise CollaboptError(
            f"object '{blob.name}' was replaced or deleted while it was read",
            where=uri,
            todo="start again when nobody writes there",
        ) from error


@contextlib.contextmanager
def _storage_errors(uri: str) -> Iterator[None]:
    """Turns errors of Cloud Storage into ours."""
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from requests.exceptions import RequestException

    bucket, _ = _bucket_and_name(uri)
    try:
        yield
    except NotFound as error:
        raise CollaboptError(f"there is no bucket '{bucket}'", where=uri, todo="check the bucket's name") from error
    except (Forbidden, Unauthorized, GoogleAuthError) as error:
        raise CollaboptError(
            f"no access to bucket '{bucket}': {error}",
            where=uri,
            todo="give this environment's account the role roles/storage.objectViewer on the bucket, or set "
            "GOOGLE_APPLICATION_CREDENTIALS",
        ) from error
    except (GoogleAPICallError, RetryError, RequestException) as error:
        raise CollaboptError(
            f"Cloud Storage did not answer: {error}", where=uri, todo="check the network, and try again"
        ) from error
