"""Sources of data and models, made local: a path stays where it is, a `gs://` URI is downloaded."""

from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from collabopt.components.engine.errors import CollaboptError

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

GCS_SCHEME = "gs://"
# Models and data that collabopt makes itself.
EXAMPLE_SCHEME = "example://"
# Data that the task brings.
TASK_SOURCE = "task"


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
    if uri.startswith(GCS_SCHEME):
        return _download(uri, Path(directory))
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


def _download(uri: str, directory: Path) -> Path:
    from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError, Unauthorized
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage
    from requests.exceptions import RequestException

    bucket, _, name = uri.removeprefix(GCS_SCHEME).partition("/")
    name = name.rstrip("/")
    if not bucket or not name:
        raise CollaboptError("this URI lacks a bucket or a path", where=uri, todo="write it as gs://bucket/path")
    try:
        return _download_objects(storage.Client(), bucket, name, directory, uri)
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


def _download_objects(client: "Client", bucket: str, name: str, directory: Path, uri: str) -> Path:
    target = directory / PurePosixPath(name).name
    blob = client.bucket(bucket).get_blob(name)
    if blob is not None:
        _download_one(blob, target)
        return target
    found = False
    for blob in client.list_blobs(bucket, prefix=f"{name}/"):
        relative = PurePosixPath(blob.name.removeprefix(f"{name}/"))
        if blob.name.endswith("/"):  # consoles mark an empty directory with such an object
            continue
        if relative.is_absolute() or ".." in relative.parts:
            raise CollaboptError(f"object '{blob.name}' would leave the download directory", where=uri)
        _download_one(blob, target / relative)
        found = True
    if not found:
        raise CollaboptError(
            f"bucket '{bucket}' has no object '{name}', nor any below '{name}/'",
            where=uri,
            todo="check the path; names are case-sensitive",
        )
    return target


def _download_one(blob: "Blob", path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    blob.download_to_filename(str(path))
