"""Puts the winner into the MLflow model registry, as the champion."""

import re
import tempfile
import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import LeafReport
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

_PYFUNC_FILE = Path(__file__).parents[1] / "deployed" / "litert_pyfunc.py"


class Promotion(BaseModel):
    """Where the winner is found in the registry.

    Attributes:
        model: Name of the registered model.
        version: Its version.
        model_id: MLflow's id of the logged model behind the version.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: str
    model_id: str


def promote(run: StageRun, report: LeafReport, tflite: str | Path, model_name: str) -> Promotion:
    """Registers a leaf as `models:/<model_name>@champion`; the former champion becomes `previous`.

    The same file is registered once: a version that carries its digest is reused, so repeating a promotion, also one
    that was interrupted, changes nothing. A version has all its tags before the alias points to it, because webhooks
    act on the alias.

    Args:
        run: Run that the model is logged to.
        report: Report of the leaf.
        tflite: Its `.tflite` file.
        model_name: Name of the registered model.

    Raises:
        CollaboptError: The name is not legal, the model has several inputs or outputs, or MLflow refuses.
    """
    check_model_name(model_name)
    client = run.client
    with mlflow_errors(client.tracking_uri):
        registered = _registered_version(client, model_name, report.deployed.sha256)
        if registered is None:
            logged = _log_model(run, report, Path(tflite))
            _ensure_registered_model(client, model_name)
            registered = client.create_model_version(
                model_name,
                # Not `models:/<id>`: an SQLite store would look that up in whatever store the process has as its
                # global one.
                source=logged.artifact_location,
                run_id=run.run_id,
                tags={**_tags(report), MODEL_ID_TAG: logged.model_id},
                model_id=logged.model_id,
            )
        else:
            client.set_model_version_tag(model_name, registered.version, "validation_status", "approved")
        _crown(client, model_name, registered.version)
    return Promotion(model=model_name, version=str(registered.version), model_id=registered.tags.get(MODEL_ID_TAG, ""))


def check_model_name(name: str) -> None:
    """Refuses names that cannot be written as `models:/<name>@champion` or looked up.

    Raises:
        CollaboptError: The name is not legal.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_. -]*[A-Za-z0-9_-])?", name):
        raise CollaboptError(
            f"{name!r} is not a legal name for a registered model",
            todo="use letters, digits, '_', '-', '.' and spaces, beginning with a letter or digit",
        )


def _crown(client: "MlflowClient", model_name: str, new: str) -> None:
    champion = _version_with_alias(client, model_name, CHAMPION)
    if champion == str(new):
        return
    if champion is not None:
        client.set_registered_model_alias(model_name, PREVIOUS, champion)
    client.set_registered_model_alias(model_name, CHAMPION, new)


def _version_with_alias(client: "MlflowClient", model_name: str, alias: str) -> str | None:
    found = client.get_registered_model(model_name).aliases.get(alias)
    return None if found is None else str(found)


def _registered_version(client: "MlflowClient", model_name: str, sha256: str) -> "ModelVersion | None":
    versions = client.search_model_versions(f"name = {quoted(model_name)}")
    same = [version for version in versions if version.tags.get("sha256") == sha256]
    return min(same, key=lambda version: int(version.version), default=None)


def _ensure_registered_model(client: "MlflowClient", model_name: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(model_name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _log_model(run: StageRun, report: LeafReport, tflite: Path) -> "LoggedModel":
    """Logs the leaf as a pyfunc model, or finds the one that an interrupted promotion has logged."""
    client = run.client
    for logged in client.search_logged_models([run.experiment_id], f"tags.sha256 = {quoted(report.deployed.sha256)}"):
        if logged.status == "READY" and logged.source_run_id == run.run_id:
            return logged
    signature = _signature(tflite)
    logged = client.create_logged_model(
        run.experiment_id, name=report.stage, source_run_id=run.run_id, tags=_tags(report), model_type=MODEL_TYPE
    )
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
            metadata={"sha256": report.deployed.sha256, "stage": report.stage},
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
        "sha256": report.deployed.sha256,
        "stage": report.stage,
        "pathway": report.pathway,
        "techniques": " > ".join(step.technique for step in report.lineage),
        "validation_status": "approved",
    }
