"""What is written to a run: params, metrics and tags, within MLflow's rules."""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from collabopt.components.engine.tracking.store import mlflow_errors

if TYPE_CHECKING:
    from mlflow import MlflowClient

# MLflow cuts longer values by itself, silently and only by default.
PARAM_CHARACTERS = 6000
TAG_CHARACTERS = 8000
_CUT = " ... (cut)"


def log_params(
    client: "MlflowClient", run_id: str, params: Mapping[str, object], present: Mapping[str, str] | None = None
) -> None:
    """Logs params; MLflow never changes one.

    Where a retried stage comes with another value, the run keeps both: the new one as `<name>.attempt_2`, and so on.

    Args:
        client: The store.
        run_id: The run.
        params: What to log.
        present: The params that the run has; asked for where not given.
    """
    from mlflow.entities import Param

    with mlflow_errors(client.tracking_uri):
        present = dict(client.get_run(run_id).data.params if present is None else present)
        fresh = []
        for name, value in params.items():
            text = _cut(as_text(value), PARAM_CHARACTERS)
            name = _free_name(legal_name(name), text, present)
            if name not in present:
                present[name] = text
                fresh.append(Param(name, text))
        if fresh:
            client.log_batch(run_id, params=fresh)


def log_metrics(client: "MlflowClient", run_id: str, metrics: Mapping[str, float]) -> None:
    """Logs metrics of a whole run. MLflow keeps NaN; infinities become the largest float."""
    log_epochs(client, run_id, {0: metrics})


def log_epochs(client: "MlflowClient", run_id: str, epochs: Mapping[int, Mapping[str, float]]) -> None:
    """Logs metrics of epochs; they count from 1."""
    from mlflow.entities import Metric
    from mlflow.utils.time import get_current_time_millis

    now = get_current_time_millis()
    points = [
        Metric(legal_name(name), float(value), now, epoch)
        for epoch, metrics in epochs.items()
        for name, value in metrics.items()
    ]
    if points:
        with mlflow_errors(client.tracking_uri):
            client.log_batch(run_id, metrics=points)


def set_tags(client: "MlflowClient", run_id: str, tags: Mapping[str, str]) -> None:
    """Sets tags, overwriting those of the same name."""
    from mlflow.entities import RunTag

    with mlflow_errors(client.tracking_uri):
        client.log_batch(run_id, tags=[RunTag(name, _cut(value, TAG_CHARACTERS)) for name, value in tags.items()])


def legal_name(name: str) -> str:
    """The name with everything that MLflow refuses in names of params and metrics replaced by `_`."""
    return re.sub(r"[^\w\-. /]", "_", name)


def as_text(value: object) -> str:
    """A param's value: strings as they are, containers as JSON, the rest as Python writes it."""
    if isinstance(value, Mapping | list | tuple):
        return json.dumps(value, sort_keys=True, default=str)
    return str(value)


def _free_name(name: str, text: str, present: Mapping[str, str]) -> str:
    attempt, free = 1, name
    while present.get(free, text) != text:
        attempt += 1
        free = f"{name}.attempt_{attempt}"
    return free


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: characters - len(_CUT)] + _CUT
