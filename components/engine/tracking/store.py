"""The MLflow store: where it is, how it is opened, in which experiment runs are kept."""

import contextlib
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.tracking.reachable import (
    check_reachable,
    is_sqlite,
    sqlite_path,
    tracking_uri,
    without_password,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient

# Refused connections are given up after 12 to 15 s, a server that accepts them and is silent after two minutes.
_LITTLE_PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3"}

DEFAULT_EXPERIMENT = "collabopt"
ARTIFACT_DIRECTORY = "mlartifacts"

# Read by MLflow when it is imported or when a model is saved: no telemetry, no advertising and progress bars in logs,
# no look at the working directory's uv project, no check of installed packages (which asks the package registry). A
# server that accepts a connection and is silent is given up after minutes: MLflow's own 120 s would be a quarter of an
# hour with its retries.
_ENVIRONMENT = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_DISABLE_AGENT_HINT": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_SKIP_PIP_REQUIREMENTS_CHECK": "true",
}


def connect() -> "MlflowClient":
    """Opens the tracking store of this process, creating an SQLite store where there is none.

    Raises:
        CollaboptError: The store cannot be opened.
    """
    uri = tracking_uri()
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if not uri.startswith("http"):
        # MLflow retries a broken database for minutes. A server may be restarting: there its retries are wanted.
        check_reachable(uri)

    from mlflow import MlflowClient

    with mlflow_errors(uri), _one_at_a_time(uri):
        return MlflowClient(tracking_uri=uri, registry_uri=os.environ.get("MLFLOW_REGISTRY_URI") or uri)


def experiment_id(client: "MlflowClient") -> str:
    """The experiment that `MLFLOW_EXPERIMENT_ID` or `MLFLOW_EXPERIMENT_NAME` name, else "collabopt"; made if missing.

    Raises:
        CollaboptError: The experiment has been deleted, or cannot be made.
    """
    from mlflow.exceptions import MlflowException

    given = os.environ.get("MLFLOW_EXPERIMENT_ID")
    if given:
        return given
    name = os.environ.get("MLFLOW_EXPERIMENT_NAME") or DEFAULT_EXPERIMENT
    with mlflow_errors(client.tracking_uri):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            try:
                return client.create_experiment(name, artifact_location=_artifact_location(client.tracking_uri))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            experiment = client.get_experiment_by_name(name)
    if experiment is None or experiment.lifecycle_stage == "deleted":
        raise CollaboptError(
            f"MLflow experiment '{name}' has been deleted",
            where=without_password(client.tracking_uri),
            todo="restore it, or set MLFLOW_EXPERIMENT_NAME to another name",
        )
    return str(experiment.experiment_id)


@contextlib.contextmanager
def mlflow_errors(uri: str) -> Iterator[None]:
    """Turns MLflow's errors into ours; wrap only calls to MLflow in it.

    Args:
        uri: Address of the store, for the message.
    """
    try:
        yield
    except _failures() as error:
        said = (str(error).strip() or type(error).__name__).splitlines()[0]
        if not isinstance(error, _mlflow_exception()):  # it may hold a signed address
            said = said.partition("?")[0]
        raise CollaboptError(
            f"MLflow: {without_password(said)}",
            where=without_password(uri),
            todo="check that the MLflow store is up and that this process may write to it, then run the stage again",
        ) from error


@contextlib.contextmanager
def little_patience() -> Iterator[None]:
    """Has MLflow's client give up soon, where its default is to try eight times, for minutes: training waits for it.

    What the environment says about patience is left as it is.
    """
    ours = {name: value for name, value in _LITTLE_PATIENCE.items() if name not in os.environ}
    os.environ.update(ours)
    try:
        yield
    finally:
        for name in ours:
            os.environ.pop(name, None)


def _failures() -> tuple[type[Exception], ...]:
    """What calls of MLflow raise: its own errors, those of uploads over HTTP or to Cloud Storage, those of a disk."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    return _mlflow_exception(), OSError, GoogleAPIError, GoogleAuthError  # errors of `requests` are OSErrors


def _mlflow_exception() -> type[Exception]:
    from mlflow.exceptions import MlflowException

    return MlflowException


def quoted(value: str) -> str:
    """The value as a literal of MLflow's filter language.

    Raises:
        CollaboptError: It holds a quote, which that language cannot express.
    """
    if "'" in value:
        raise CollaboptError(f"{value!r} cannot be looked up in MLflow", todo="use a name without quotes")
    return f"'{value}'"


def _artifact_location(uri: str) -> str | None:
    """Artifacts of an SQLite store lie beside it; MLflow's default is where its first process happened to start."""
    return (sqlite_path(uri).parent / ARTIFACT_DIRECTORY).as_uri() if is_sqlite(uri) else None


@contextlib.contextmanager
def _one_at_a_time(uri: str) -> Iterator[None]:
    """Lets one process at a time open an SQLite store: MLflow creates its tables without a lock of its own."""
    if not is_sqlite(uri):
        yield
        return
    import fcntl

    # What opening the store imports, for most of a second: not while others wait.
    import mlflow.store.tracking.sqlalchemy_store  # noqa: F401

    # Beside the database, where every process looks, whatever its TMPDIR; not the database itself, whose locks SQLite
    # would lose when this file is closed.
    with open(f"{sqlite_path(uri)}.lock", "ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
