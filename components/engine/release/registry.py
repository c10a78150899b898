"""The winner in the MLflow model registry: logged once, registered once, its aliases those of the pointer."""

import tempfile
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import LeafReport
from collabopt.components.engine.release.object_store import ObjectStore
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.tracking.reachable import without_password
from collabopt.components.engine.tracking.stage import StageRun
from collabopt.components.engine.tracking.store import mlflow_errors, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion
    from mlflow.models import ModelSignature

CHAMPION = "champion"
PREVIOUS = "previous"
MODEL_TYPE = "litert"
# An SQL store keeps no `model_id` with the version.
MODEL_ID_TAG = "model_id"
SHA256_TAG = "sha256"
# `pending` until the version becomes champion, so also of one that never does because another gate was faster;
# `approved` from just before it gets the alias; `rejected` once it is rolled back.
STATUS_TAG = "validation_status"

_PYFUNC_FILE = Path(__file__).parents[1] / "deployed" / "litert_pyfunc.py"


def register(run: StageRun, report: LeafReport, tflite: Path, name: str, tags: Mapping[str, str]) -> "ModelVersion":
    """Registers a leaf once: the version that carries the digest of its file is found again, however often this runs.

    The version has all its tags but the final status when this returns.

    Args:
        run: Run that the model is logged to.
        report: Report of the leaf.
        tflite: Its `.tflite` file.
        name: Name of the registered model.
        tags: Tags to set beside those that follow from the report.

    Raises:
        CollaboptError: The model has several inputs or outputs, or MLflow refuses or cannot be reached.
    """
    client, sha256 = run.client, report.deployed.sha256
    with mlflow_errors(client.tracking_uri):
        registered = version_of(client, name, sha256)
        if registered is None:
            logged = _log_model(run, report, tflite)
            _ensure_registered_model(client, name)
            client.create_model_version(
                name,
                # Not `models:/<id>`: an SQLite store would look that up in whatever store the process has as its
                # global one.
                source=logged.artifact_location,
                run_id=run.run_id,
                tags={**_tags(report), **tags, MODEL_ID_TAG: logged.model_id, STATUS_TAG: "pending"},
                model_id=logged.model_id,
            )
            registered = _without_duplicates(client, name, sha256)
        present = registered.tags
        wanted = {**{key: value for key, value in _tags(report).items() if key not in present}, **tags}
        for key, value in wanted.items():
            _set_tag(client, registered, key, value)
    return registered


def mirror(client: "MlflowClient", name: str, store: ObjectStore) -> None:
    """Makes the aliases `champion` and `previous`, and the status of what was withdrawn, say what the pointer says.

    The champion is approved before it gets the alias: webhooks act on the alias. Whoever has set an alias looks at the
    pointer again, so of several at once the last one to finish has seen the last pointer.

    Args:
        client: Client of the registry.
        name: Name of the release and of the registered model.
        store: Where the pointer is.

    Raises:
        CollaboptError: The champion is not registered, or MLflow or the store cannot be reached.
    """
    found = champion_of(store, name)
    while found is not None:
        pointer = found[0]
        with mlflow_errors(client.tracking_uri):
            champion = version_of(client, name, pointer.champion)
            if champion is None:
                raise CollaboptError(
                    f"the registered model '{name}' has no version with the champion's digest {pointer.champion}",
                    where=without_password(client.tracking_uri),
                    todo="check that this is the registry of the releases; if it was lost, run the gate that promoted "
                    "this model again",
                )
            previous = None if pointer.previous is None else version_of(client, name, pointer.previous)
            _set_tag(client, champion, STATUS_TAG, "approved")
            _set_aliases(client, name, champion, previous)
            for sha256 in pointer.withdrawn:
                for withdrawn in _versions(client, name, sha256):
                    _set_tag(client, withdrawn, STATUS_TAG, "rejected")
        again = champion_of(store, name)
        if again == found:
            return
        found = again


def crown(client: "MlflowClient", name: str, new: "ModelVersion") -> None:
    """Makes a version the champion where there is no pointer: the former champion becomes `previous`.

    Raises:
        CollaboptError: MLflow refuses or cannot be reached.
    """
    with mlflow_errors(client.tracking_uri):
        _set_tag(client, new, STATUS_TAG, "approved")
        champion = _aliases(client, name).get(CHAMPION)
        if champion == str(new.version):
            return
        if champion is not None:
            _set_alias(client, name, PREVIOUS, champion)
        _set_alias(client, name, CHAMPION, str(new.version))


def version_of(client: "MlflowClient", name: str, sha256: str) -> "ModelVersion | None":
    """The version that carries a file's digest: the oldest one, where several processes have registered it at once."""
    return min(_versions(client, name, sha256), key=lambda version: int(version.version), default=None)


def _versions(client: "MlflowClient", name: str, sha256: str) -> "list[ModelVersion]":
    return list(client.search_model_versions(f"name = {quoted(name)} and tags.{SHA256_TAG} = {quoted(sha256)}"))


def _set_tag(client: "MlflowClient", version: "ModelVersion", key: str, value: str) -> None:
    if version.tags.get(key) != value:
        client.set_model_version_tag(version.name, version.version, key, value)


def _without_duplicates(client: "MlflowClient", name: str, sha256: str) -> "ModelVersion":
    """The oldest version of a file; later ones, which other processes have made at the same time, are deleted."""
    from mlflow.exceptions import MlflowException

    oldest, *later = sorted(_versions(client, name, sha256), key=lambda version: int(version.version))
    aliased = set(_aliases(client, name).values()) if later else set()
    for duplicate in later:
        if str(duplicate.version) in aliased:
            continue
        try:
            client.delete_model_version(name, duplicate.version)
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
    return oldest


def _set_aliases(client: "MlflowClient", name: str, champion: "ModelVersion", previous: "ModelVersion | None") -> None:
    aliases = _aliases(client, name)
    if previous is None:
        if PREVIOUS in aliases:
            client.delete_registered_model_alias(name, PREVIOUS)
    elif aliases.get(PREVIOUS) != str(previous.version):
        _set_alias(client, name, PREVIOUS, str(previous.version))
    if aliases.get(CHAMPION) != str(champion.version):
        _set_alias(client, name, CHAMPION, str(champion.version))


def _set_alias(client: "MlflowClient", name: str, alias: str, version: str) -> None:
    """Sets an alias. Of two processes that make it at once MLflow's database refuses one, which then changes it."""
    from mlflow.exceptions import MlflowException

    try:
        client.set_registered_model_alias(name, alias, version)
    except MlflowException as error:
        if error.error_code != "BAD_REQUEST" or alias not in _aliases(client, name):
            raise
        client.set_registered_model_alias(name, alias, version)


def _aliases(client: "MlflowClient", name: str) -> dict[str, str]:
    return {alias: str(version) for alias, version in client.get_registered_model(name).aliases.items()}


def _ensure_registered_model(client: "MlflowClient", name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(run: StageRun, report: LeafReport, tflite: Path) -> "LoggedModel":
    """Logs the leaf as a pyfunc model, or finishes what an attempt of this run that was interrupted has begun."""
    client = run.client
    signature = _signature(tflite)
    found = client.search_logged_models([run.experiment_id], f"tags.{SHA256_TAG} = {quoted(report.deployed.sha256)}")
    begun = [logged for logged in found if logged.source_run_id == run.run_id and logged.status in ("READY", "PENDING")]
    logged = min(begun, key=lambda logged: (logged.status != "READY", logged.creation_timestamp), default=None)
    if logged is None:
        logged = client.create_logged_model(
            run.experiment_id, name=report.stage, source_run_id=run.run_id, tags=_tags(report), model_type=MODEL_TYPE
        )
    elif logged.status == "READY":
        return logged
    with tempfile.TemporaryDirectory() as directory:
        _save_pyfunc(Path(directory) / "model", report, tflite, signature, logged.model_id, run)
        client.log_model_artifacts(logged.model_id, str(Path(directory) / "model"))
    return client.finalize_logged_model(logged.model_id, "READY")


def _save_pyfunc(
    path: Path, report: LeafReport, tflite: Path, signature: "ModelSignature", model_id: str, run: StageRun
) -> None:
    import mlflow.pyfunc
    from mlflow.models import Model

    with warnings.catch_warnings():
        # An example would be run through the model here, to check a signature that was read from the model itself.
        warnings.filterwarnings("ignore", message=".*input example was not provided")
        mlflow.pyfunc.save_model(
            path,
            python_model=str(_PYFUNC_FILE),
            artifacts={"tflite": str(tflite)},
            signature=signature,
            # Given in full: MLflow would otherwise load the model in another process to see what it imports.
            pip_requirements=[f"{name}=={version(name)}" for name in ("mlflow", "ai-edge-litert", "numpy")],
            metadata={SHA256_TAG: report.deployed.sha256, "stage": report.stage},
            mlflow_model=Model(run_id=run.run_id, model_id=model_id),
        )


def _signature(tflite: Path) -> "ModelSignature":
    """Built by hand: `infer_signature` needs the samples, and without scipy degrades silently to any type."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter
    from mlflow.models import ModelSignature
    from mlflow.types import Schema, TensorSpec

    interpreter = Interpreter(model_path=str(tflite))
    inputs, outputs = interpreter.get_input_details(), interpreter.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise CollaboptError(
            f"the model has {len(inputs)} inputs and {len(outputs)} outputs; only one of each can be promoted",
            where=str(tflite),
        )

    def schema(details: dict[str, Any], name: str) -> Schema:
        shape = (-1, *(int(size) for size in details["shape"][1:]))
        return Schema([TensorSpec(np.dtype(np.float32), shape)])

    return ModelSignature(inputs=schema(inputs[0], "input"), outputs=schema(outputs[0], "output"))


def _tags(report: LeafReport) -> dict[str, str]:
    return {
        SHA256_TAG: report.deployed.sha256,
        "stage": report.stage,
        "pathway": report.pathway,
        "techniques": " > ".join(step.technique for step in report.lineage),
    }
