"""Can the tracking store be used? Asked before anything starts, so without importing `mlflow`."""

import http.client
import os
import re
import ssl
import tempfile
import urllib.error
import urllib.request
from base64 import b64encode
from pathlib import Path
from urllib.parse import urlsplit

from collabopt.components.engine.errors import CollaboptError

TRACKING_URI_VARIABLE = "MLFLOW_TRACKING_URI"
DEFAULT_TRACKING_URI = "sqlite:///mlflow.db"
PROBE_TIMEOUT_SECONDS = 5.0

_UNPROBED_SCHEMES = frozenset({"postgresql", "mysql", "mssql", "databricks"})
_SQLITE_HEADER = b"SQLite format 3\0"
_ADVICE = f"set {TRACKING_URI_VARIABLE} to sqlite:////absolute/path/mlflow.db or to the address of an MLflow server"


def tracking_uri() -> str:
    """The store that this process logs to: `MLFLOW_TRACKING_URI`, else a SQLite file in the working directory."""
    return os.environ.get(TRACKING_URI_VARIABLE) or DEFAULT_TRACKING_URI


def is_sqlite(uri: str) -> bool:
    """Whether the address is that of an SQLite file."""
    return _scheme(uri) == "sqlite"


def check_reachable(uri: str | None) -> None:
    """Fails early where MLflow could not log.

    A server is asked for its health (at most 5 s), a SQLite file must be one that can be written; other databases are
    left to MLflow.

    Args:
        uri: Address of the tracking store; None for the one this process would use.

    Raises:
        CollaboptError: The store cannot be reached or written, or is of a kind that MLflow no longer supports.
    """
    uri = uri or tracking_uri()
    scheme = _scheme(uri)
    if scheme in ("http", "https"):
        _probe_server(uri)
    elif is_sqlite(uri):
        _check_sqlite(sqlite_path(uri))
    elif scheme not in _UNPROBED_SCHEMES and uri != "databricks":
        kind = "a directory" if scheme in ("", "file") else f"of the unknown kind '{scheme}'"
        raise CollaboptError(
            f"the MLflow tracking store is {kind}, which cannot be logged to", where=without_password(uri), todo=_ADVICE
        )


def sqlite_path(uri: str) -> Path:
    """The absolute path of the database file behind a `sqlite:` address.

    Raises:
        CollaboptError: The database would be in memory.
    """
    path = uri.partition("://")[2].partition("?")[0].removeprefix("/")
    if path in ("", ":memory:"):
        raise CollaboptError(
            "an SQLite store in memory is lost with the process that opened it", where=uri, todo=_ADVICE
        )
    return Path(path).absolute()


def without_password(uri: str) -> str:
    """The address as it may be shown: without user and password."""
    return re.sub("//[^/]*@", "//", uri)


def _scheme(uri: str) -> str:
    """Scheme of the address without its driver: `postgresql` of `postgresql+psycopg2://...`."""
    return uri.partition("://")[0].partition("+")[0] if "://" in uri else ""


def _check_sqlite(path: Path) -> None:
    if not path.parent.is_dir():
        raise CollaboptError(
            "the directory of the MLflow database does not exist",
            where=str(path.parent),
            todo=f"create it, or {_ADVICE}",
        )
    if path.exists():
        _check_database_file(path)
    try:
        # SQLite keeps its journal beside the database: a writable file in a read-only directory is not enough.
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise CollaboptError(
            f"the directory of the MLflow database cannot be written: {error.strerror}",
            where=str(path.parent),
            todo=f"make it writable, or {_ADVICE}",
        ) from error


def _check_database_file(path: Path) -> None:
    try:
        with open(path, "r+b") as file:
            header = file.read(len(_SQLITE_HEADER))
    except OSError as error:
        raise CollaboptError(
            f"the MLflow database cannot be opened for writing: {error.strerror}", where=str(path), todo=_ADVICE
        ) from error
    if header and header != _SQLITE_HEADER:
        raise CollaboptError("the MLflow database is not an SQLite file", where=str(path), todo=_ADVICE)


def _probe_server(uri: str) -> None:
    where = without_password(uri)
    try:
        request = urllib.request.Request(without_password(uri).rstrip("/") + "/health", headers=_credentials(uri))
        with urllib.request.urlopen(request, timeout=PROBE_TIMEOUT_SECONDS, context=_tls(uri)):
            return
    except urllib.error.HTTPError as error:
        todo = f"check that {TRACKING_URI_VARIABLE} is the address of an MLflow server"
        if error.code in (401, 403):
            todo = (
                "set MLFLOW_TRACKING_TOKEN, or MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD; "
                "a server that refuses this host name has to be started with --allowed-hosts"
            )
        raise CollaboptError(
            f"the MLflow server answered with HTTP status {error.code}", where=where, todo=todo
        ) from error
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise CollaboptError(
            f"the MLflow server cannot be reached: {reason}",
            where=where,
            todo=f"start it, or correct {TRACKING_URI_VARIABLE}",
        ) from error


def _credentials(uri: str) -> dict[str, str]:
    parts = urlsplit(uri)
    user = parts.username or os.environ.get("MLFLOW_TRACKING_USERNAME")
    password = parts.password or os.environ.get("MLFLOW_TRACKING_PASSWORD")
    if user and password:
        return {"Authorization": "Basic " + b64encode(f"{user}:{password}".encode()).decode("ascii")}
    token = os.environ.get("MLFLOW_TRACKING_TOKEN")
    return {"Authorization": f"Bearer {token}"} if token else {}


def _tls(uri: str) -> ssl.SSLContext | None:
    if not uri.startswith("https:"):
        return None
    context = ssl.create_default_context(
        cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH") or os.environ.get("REQUESTS_CA_BUNDLE")
    )
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() == "true":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
