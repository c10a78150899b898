"""What a run has to show, and how a run that shows only a part of it is completed."""

import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from collabopt.components.engine.tracking import entries
from collabopt.components.engine.tracking.store import mlflow_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass
class Account:
    """All that is, or is to be, logged to one run.

    Attributes:
        tags: Tags.
        params: Params under their full names.
        metrics: Scalars of the finished stage.
        epochs: Epoch, from 1 -> its metrics.
        paths: Files and directories.
    """

    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, object] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    epochs: dict[int, dict[str, float]] = field(default_factory=dict)
    paths: list[Path] = field(default_factory=list)


def complete(client: "MlflowClient", run: "Run", account: Account) -> None:
    """Logs what a run lacks of an account, and nothing twice; where it lacks nothing, it only looks at its files.

    An earlier attempt of the stage may have left other values: the account's come after them. Files of a run that has
    not finished are written again, because they may be those of such an attempt.

    Args:
        client: The store.
        run: The run as it is now.
        account: What it has to show.

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    run_id, data = run.info.run_id, run.data
    with mlflow_errors(client.tracking_uri):
        present = {file.path for file in client.list_artifacts(run_id)} if account.paths else set()
    tags = {name: value for name, value in account.tags.items() if data.tags.get(name) != value}
    metrics = {
        name: value
        for name, value in account.metrics.items()
        if not _is_logged(value, data.metrics.get(entries.legal_name(name)))
    }
    finished = run.info.status == "FINISHED"
    paths = [path for path in account.paths if not (finished and path.name in present)]
    if tags:
        entries.set_tags(client, run_id, tags)
    if account.params:
        entries.log_params(client, run_id, account.params, data.params)
    if metrics or paths:  # what came after the epochs is there only if they are
        entries.log_epochs(client, run_id, _missing_epochs(client, run_id, account.epochs))
    if metrics:
        entries.log_metrics(client, run_id, metrics)
    for path in paths:
        log_path(client, run_id, path)


def log_path(client: "MlflowClient", run_id: str, path: Path) -> None:
    """Logs a file, or a directory under its own name."""
    with mlflow_errors(client.tracking_uri):
        if path.is_dir():
            client.log_artifacts(run_id, str(path), artifact_path=path.name)
        else:
            client.log_artifact(run_id, str(path))


def _missing_epochs(
    client: "MlflowClient", run_id: str, epochs: Mapping[int, Mapping[str, float]]
) -> dict[int, dict[str, float]]:
    logged = {name: _latest(client, run_id, name) for name in {name for row in epochs.values() for name in row}}
    missing = {
        epoch: {name: value for name, value in metrics.items() if not _is_logged(value, logged[name].get(epoch))}
        for epoch, metrics in epochs.items()
    }
    return {epoch: metrics for epoch, metrics in missing.items() if metrics}


def _latest(client: "MlflowClient", run_id: str, name: str) -> dict[int, float]:
    """Step -> what was logged for it last."""
    with mlflow_errors(client.tracking_uri):
        points = client.get_metric_history(run_id, entries.legal_name(name))
    return {point.step: point.value for point in sorted(points, key=lambda point: point.timestamp)}


def _is_logged(value: float, logged: float | None) -> bool:
    if logged is None or math.isnan(value):
        return logged is not None and math.isnan(logged)
    return max(-sys.float_info.max, min(value, sys.float_info.max)) == logged  # as MLflow keeps infinities
