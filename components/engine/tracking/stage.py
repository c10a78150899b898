"""The run of one stage."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.tracking import entries
from collabopt.components.engine.tracking.parent import (
    CHILD_PIPELINE_TAG,
    INJECTED_RUN_ID_VARIABLE,
    PARENT_RUN_TAG,
    PIPELINE_RUN_ID_VARIABLE,
    parent_of_this_process,
)
from collabopt.components.engine.tracking.store import connect, experiment_id, mlflow_errors, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STAGE_TAG = "collabopt.stage"


@dataclass(frozen=True)
class StageRun:
    """The MLflow run of the stage that this process executes.

    Attributes:
        stage: Name of the stage.
        run_id: MLflow run id.
        experiment_id: MLflow experiment id.
        client: For what the methods do not cover.
    """

    stage: str
    run_id: str
    experiment_id: str
    client: "MlflowClient" = field(repr=False, compare=False)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Logs params as `<stage>.<name>`.

        Never under their bare names: KFP's native plugin logs component inputs under those, and MLflow refuses a whole
        batch in which one param has another value.
        """
        named = {f"{self.stage}.{name}": value for name, value in params.items()}
        entries.log_params(self.client, self.run_id, named)

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of one epoch; epochs count from 1."""
        entries.log_metrics(self.client, self.run_id, metrics, step=epoch)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs metrics of the finished stage."""
        entries.log_metrics(self.client, self.run_id, metrics)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, overwriting those of the same name."""
        entries.set_tags(self.client, self.run_id, tags)

    def log_artifact(self, path: str | Path) -> None:
        """Logs a file, or a directory under its own name."""
        path = Path(path)
        with mlflow_errors(self.client.tracking_uri):
            if path.is_dir():
                self.client.log_artifacts(self.run_id, str(path), artifact_path=path.name)
            else:
                self.client.log_artifact(self.run_id, str(path))

    @property
    def ids(self) -> dict[str, str]:
        """`run_id` and `experiment_id`, as stage records keep them."""
        return {"run_id": self.run_id, "experiment_id": self.experiment_id}


@contextlib.contextmanager
def stage_run(stage: str, *, tags: Mapping[str, str] | None = None) -> Iterator[StageRun]:
    """Opens the MLflow run of a stage, below the parent run of its pipeline run.

    A stage that is retried resumes its run. Where KFP's native plugin has made a run for the task (`MLFLOW_RUN_ID`),
    that run is used, under the name it has. Outside of a pipeline run (no `COLLABOPT_PIPELINE_RUN_ID`) the run has no
    parent.

    Args:
        stage: Name of the stage; also of the run.
        tags: Tags to set on the run.

    Yields:
        The run. It ends as FINISHED, or as FAILED when the block raises.

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    client = connect()
    run = _open(client, stage)
    opened = StageRun(stage, run.info.run_id, run.info.experiment_id, client)
    opened.set_tags({STAGE_TAG: stage, **(tags or {})})
    try:
        yield opened
    except BaseException as error:
        try:
            _end(opened, "FAILED")
        except CollaboptError as unlogged:
            error.add_note(f"MLflow was not told of the failure: {unlogged.what}")
        raise
    _end(opened, "FINISHED")


def _open(client: "MlflowClient", stage: str) -> "Run":
    injected = os.environ.get(INJECTED_RUN_ID_VARIABLE)
    if injected:
        with mlflow_errors(client.tracking_uri):
            client.update_run(injected, status="RUNNING")
            return client.get_run(injected)
    tags = {STAGE_TAG: stage, "mlflow.source.name": "collabopt"}
    parent = parent_of_this_process(client)
    if parent is None:
        experiment = experiment_id(client)
    else:
        parent.resume()
        experiment = parent.experiment_id
        tags |= {PARENT_RUN_TAG: parent.run_id, CHILD_PIPELINE_TAG: os.environ[PIPELINE_RUN_ID_VARIABLE]}
    with mlflow_errors(client.tracking_uri):
        earlier = _earlier_attempt(client, experiment, stage) if parent else None
        if earlier is None:
            return client.create_run(experiment, run_name=stage, tags=tags)
        client.update_run(earlier.info.run_id, status="RUNNING")
        client.set_tag(earlier.info.run_id, PARENT_RUN_TAG, tags[PARENT_RUN_TAG])
        return earlier


def _earlier_attempt(client: "MlflowClient", experiment: str, stage: str) -> "Run | None":
    pipeline_run_id = os.environ[PIPELINE_RUN_ID_VARIABLE]
    runs = client.search_runs(
        [experiment],
        f"tags.`{CHILD_PIPELINE_TAG}` = {quoted(pipeline_run_id)} and tags.`{STAGE_TAG}` = {quoted(stage)}",
        order_by=["attributes.start_time ASC"],
        max_results=1,
    )
    return runs[0] if runs else None


def _end(run: StageRun, status: str) -> None:
    with mlflow_errors(run.client.tracking_uri):
        run.client.set_terminated(run.run_id, status)
