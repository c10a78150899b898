"""A store in a bucket of Google Cloud Storage."""

import contextlib
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.checksums import crc32c_of
from collabopt.components.engine.release.names import check_object_name
from collabopt.components.engine.release.object_store import GCS_SCHEME, conflict, occupied

if TYPE_CHECKING:
    from google.cloud.storage import Blob, Client

DEADLINE_VARIABLE = "COLLABOPT_STORAGE_DEADLINE_SECONDS"
DEFAULT_DEADLINE_SECONDS = 60.0
# Of a resumable upload, which the client library makes of every object of more than 8 MiB: what is sent again after a
# lost connection.
_CHUNK_BYTES = 8 << 20


@dataclass(frozen=True)
class BucketStore:
    """Objects of a bucket, below a prefix.

    Every write carries the generation that it expects and the CRC32C of its content, so it may be repeated safely.

    Attributes:
        client: Client of the library.
        bucket: Name of the bucket.
        prefix: What every object's name begins with; "" or ending in `/`.
        deadline_seconds: How long one call is tried, and how long one of its requests may take.
    """

    client: "Client"
    bucket: str
    prefix: str
    deadline_seconds: float

    @property
    def uri(self) -> str:
        """`gs://bucket/prefix`."""
        return f"{GCS_SCHEME}{self.bucket}/{self.prefix}".rstrip("/")

    def read(self, name: str) -> tuple[bytes, int] | None:
        """See `ObjectStore.read`."""
        from google.api_core.exceptions import NotFound

        blob = self._blob(name)
        with self._errors():
            try:
                # The generation is that of this very content: it comes with the same answer.
                content = blob.download_as_bytes(raw_download=True, checksum="crc32c", **self._patience())
            except NotFound as error:
                if "bucket does not exist" in str(error):
                    raise
                return None
        return content, int(blob.generation or 0)

    def create(self, name: str, content: bytes | Path, content_type: str) -> None:
        """See `ObjectStore.create`."""
        from google.api_core.exceptions import PreconditionFailed

        crc32c, size = crc32c_of(content), len(content) if isinstance(content, bytes) else content.stat().st_size
        with self._errors():
            try:
                self._upload(self._blob(name), content, content_type, 0, crc32c)
            except PreconditionFailed:
                present = self._blob(name)
                present.reload(**self._patience())
                if (present.crc32c, present.size) != (crc32c, size):
                    raise occupied(name, self.uri) from None

    def replace(self, name: str, content: bytes, generation: int) -> int:
        """See `ObjectStore.replace`."""
        from google.api_core.exceptions import PreconditionFailed

        blob = self._blob(name)
        blob.cache_control = "no-store"
        with self._errors():
            try:
                self._upload(blob, content, "application/json", generation, crc32c_of(content))
                return int(blob.generation)
            except PreconditionFailed:
                pass
        # The answer to a write that landed may have been lost, and the library has sent it again.
        present = self.read(name)
        if present is None or present[0] != content:
            raise conflict(name, self.uri)
        return present[1]

    def names(self, prefix: str) -> list[str]:
        """See `ObjectStore.names`."""
        with self._errors():
            blobs = self.client.list_blobs(self.bucket, prefix=self.prefix + prefix, **self._patience())
            return sorted(blob.name.removeprefix(self.prefix) for blob in blobs)

    def _blob(self, name: str) -> "Blob":
        check_object_name(name)
        return self.client.bucket(self.bucket).blob(self.prefix + name)

    def _upload(self, blob: "Blob", content: bytes | Path, content_type: str, generation: int, crc32c: str) -> None:
        arguments: dict[str, Any] = {
            "content_type": content_type,
            "if_generation_match": generation,
            "checksum": "crc32c",
            # For a resumable upload, which otherwise compares checksums only when the object is already there.
            "crc32c_checksum_value": crc32c,
            **self._patience(),
        }
        if isinstance(content, bytes):
            blob.upload_from_string(content, **arguments)
        else:
            blob.chunk_size = _CHUNK_BYTES
            blob.upload_from_filename(str(content), **arguments)

    def _patience(self) -> dict[str, Any]:
        from google.cloud.storage.retry import DEFAULT_RETRY

        return {"retry": DEFAULT_RETRY.with_timeout(self.deadline_seconds), "timeout": self.deadline_seconds}

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        from google.api_core.exceptions import Forbidden, GoogleAPICallError, NotFound, RetryError, Unauthorized
        from google.auth.exceptions import GoogleAuthError
        from google.cloud.storage.exceptions import DataCorruption, InvalidResponse
        from requests.exceptions import RequestException

        try:
            yield
        except NotFound as error:
            raise CollaboptError(
                f"bucket '{self.bucket}', or the object in it, does not exist",
                where=self.uri,
                todo="check the bucket's name",
            ) from error
        except (Forbidden, Unauthorized, GoogleAuthError) as error:
            raise CollaboptError(
                f"no access to bucket '{self.bucket}': {_reason(error)}",
                where=self.uri,
                todo="give this environment's account the role roles/storage.objectUser on the bucket, or set "
                "GOOGLE_APPLICATION_CREDENTIALS",
            ) from error
        except (GoogleAPICallError, RetryError, RequestException, InvalidResponse, DataCorruption) as error:
            raise CollaboptError(
                f"Cloud Storage did not do what was asked: {_reason(error)}",
                where=self.uri,
                todo=f"check the network, then run the gate again; {DEADLINE_VARIABLE} sets how long it is tried "
                f"(now {self.deadline_seconds:g} s)",
            ) from error


def open_bucket(uri: str) -> BucketStore:
    """Opens `gs://bucket/prefix`, with the credentials of this environment; sends nothing yet.

    Raises:
        CollaboptError: The address lacks a bucket or is not legal, or there are no credentials.
    """
    from google.auth.exceptions import GoogleAuthError
    from google.cloud import storage

    bucket, _, prefix = uri.removeprefix(GCS_SCHEME).partition("/")
    prefix = prefix.strip("/")
    if not bucket:
        raise CollaboptError("this address lacks a bucket", where=uri, todo="write it as gs://bucket/prefix")
    if prefix:
        check_object_name(prefix)
    try:
        # No call that is made here needs a project.
        client = storage.Client(project=None)
    except GoogleAuthError as error:
        raise CollaboptError(
            f"no credentials for Cloud Storage: {_reason(error)}",
            where=uri,
            todo="run where a service account is bound, or set GOOGLE_APPLICATION_CREDENTIALS",
        ) from error
    return BucketStore(client, bucket, f"{prefix}/" if prefix else "", _deadline_seconds())


def _deadline_seconds() -> float:
    given = os.environ.get(DEADLINE_VARIABLE)
    if not given:
        return DEFAULT_DEADLINE_SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise CollaboptError(f"{given!r} is not a time in seconds", where=DEADLINE_VARIABLE, todo="set it to, say, 60")
    return seconds


def _reason(error: Exception) -> str:
    """What went wrong in one line, without queries of URLs: that of a resumable upload lets anyone write to it."""
    text = str(error).strip() or type(error).__name__
    return re.sub(r"\?[^\s'\")]*", "", text.splitlines()[0])
