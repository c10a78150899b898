"""The parent run of a pipeline run, which all its stages agree on although no process starts first.

Stages may start at the same moment in different pods. MLflow has no unique key to settle who creates the parent, so
whoever finds none creates one, waits until every other process that found none has created its own too, and then
follows the same rule as they do: the settled one, else the oldest. The creators of the others delete them.
"""

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from collabopt.components.engine.session import PIPELINE_NAME_VARIABLE, PIPELINE_RUN_ID_VARIABLE
from collabopt.components.engine.tracking import entries
from collabopt.components.engine.tracking.store import connect, experiment_id, mlflow_errors, quoted

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

INJECTED_RUN_ID_VARIABLE = "MLFLOW_RUN_ID"

# The key that KFP's native MLflow plugin puts on its parent runs
# (kubeflow/pipelines backend/src/apiserver/plugins/mlflow/util.go): where it made a parent, that one is found.
PIPELINE_TAG = "kfp.pipeline_run_id"
CHILD_PIPELINE_TAG = "collabopt.pipeline_run_id"
PARENT_RUN_TAG = "mlflow.parentRunId"
DESCRIPTION_TAG = "mlflow.note.content"
OWN_PARENT_TAG = "collabopt.parent"
PROPOSED, SETTLED = "proposed", "settled"

# Longer than a process takes from finding no parent to having created one; where the server is slow, so many times what
# it has just taken.
SETTLE_SECONDS, SETTLE_TIMES = 1.0, 2


@dataclass(frozen=True)
class ParentRun:
    """The run that stands for a whole pipeline run.

    Attributes:
        run_id: MLflow run id.
        experiment_id: MLflow experiment id.
        owned: Whether collabopt made it; KFP's native plugin ends its own.
        client: For what the methods do not cover.
    """

    run_id: str
    experiment_id: str
    owned: bool
    client: "MlflowClient" = field(repr=False, compare=False)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Logs params under their own names."""
        entries.log_params(self.client, self.run_id, params)

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs metrics under their own names."""
        entries.log_metrics(self.client, self.run_id, metrics)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, overwriting those of the same name."""
        entries.set_tags(self.client, self.run_id, tags)

    def describe(self, markdown: str) -> None:
        """Sets the description that MLflow shows on the run's page, at most 8000 characters."""
        entries.set_tags(self.client, self.run_id, {DESCRIPTION_TAG: markdown})

    def log_artifact(self, path: Path) -> None:
        """Logs a file."""
        with mlflow_errors(self.client.tracking_uri):
            self.client.log_artifact(self.run_id, str(path))

    def finish(self) -> None:
        """Marks the pipeline run as finished."""
        self._end("FINISHED")

    def fail(self) -> None:
        """Marks the pipeline run as failed."""
        self._end("FAILED")

    def resume(self) -> None:
        """Marks the pipeline run as running again, for a stage that is retried after the pipeline had failed."""
        if self.owned:
            with mlflow_errors(self.client.tracking_uri):
                if self.client.get_run(self.run_id).info.status != "RUNNING":
                    self.client.update_run(self.run_id, status="RUNNING")

    def _end(self, status: str) -> None:
        if self.owned:
            with mlflow_errors(self.client.tracking_uri):
                self.client.set_terminated(self.run_id, status)


def open_parent() -> ParentRun | None:
    """The parent run of this process's pipeline run, with every child of that pipeline run below it.

    Returns:
        The parent, made if there is none yet; None outside of a pipeline run.
    """
    client = connect()
    parent = parent_of_this_process(client)
    pipeline_run_id = os.environ.get(PIPELINE_RUN_ID_VARIABLE)
    if parent is not None and pipeline_run_id and not os.environ.get(INJECTED_RUN_ID_VARIABLE):
        _gather(client, parent, pipeline_run_id)
    return parent


def fail_parent(pipeline_run_id: str) -> None:
    """Marks a pipeline run as failed, and as killed those of its stages that never said how they ended.

    Does nothing where no stage has logged yet.

    Args:
        pipeline_run_id: Id of the pipeline run, as its stages know it.
    """
    client = connect()
    experiment = experiment_id(client)
    with mlflow_errors(client.tracking_uri):
        for child in _children(client, experiment, pipeline_run_id):
            if child.info.status in ("RUNNING", "SCHEDULED"):
                client.set_terminated(child.info.run_id, "KILLED")
        for run in _parents(client, experiment, pipeline_run_id):
            _as_parent(client, run).fail()


def parent_of_this_process(client: "MlflowClient") -> ParentRun | None:
    """The parent run that this process's stage belongs to, made if there is none; None outside of a pipeline run."""
    injected = os.environ.get(INJECTED_RUN_ID_VARIABLE)
    if injected:
        return _root(client, injected)
    pipeline_run_id = os.environ.get(PIPELINE_RUN_ID_VARIABLE)
    if not pipeline_run_id:
        return None
    return _agree(client, experiment_id(client), pipeline_run_id)


def _root(client: "MlflowClient", run_id: str) -> ParentRun | None:
    with mlflow_errors(client.tracking_uri):
        run = client.get_run(run_id)
        while above := run.data.tags.get(PARENT_RUN_TAG):
            run = client.get_run(above)
    return None if run.info.run_id == run_id else _as_parent(client, run)


def _agree(client: "MlflowClient", experiment: str, pipeline_run_id: str) -> ParentRun:
    with mlflow_errors(client.tracking_uri):
        began = time.monotonic()
        candidates = _parents(client, experiment, pipeline_run_id)
        if candidates and candidates[0].data.tags.get(OWN_PARENT_TAG) != PROPOSED:
            return _as_parent(client, candidates[0])
        own = None
        if not candidates:
            own = client.create_run(
                experiment,
                run_name=os.environ.get(PIPELINE_NAME_VARIABLE) or pipeline_run_id,
                tags={PIPELINE_TAG: pipeline_run_id, OWN_PARENT_TAG: PROPOSED, "mlflow.source.name": "collabopt"},
            )
        time.sleep(max(SETTLE_SECONDS, SETTLE_TIMES * (time.monotonic() - began)))
        settled = False
        while not settled:
            chosen = _parents(client, experiment, pipeline_run_id)[0]
            if own is not None and own.info.run_id != chosen.info.run_id:
                client.delete_run(own.info.run_id)
                own = None
            settled = chosen.data.tags.get(OWN_PARENT_TAG) != PROPOSED or _settle(client, chosen)
    return _as_parent(client, chosen)


def _settle(client: "MlflowClient", run: "Run") -> bool:
    """Makes a proposed parent the settled one; False where its creator has deleted it, who has found another."""
    from mlflow import MlflowException

    try:
        client.set_tag(run.info.run_id, OWN_PARENT_TAG, SETTLED)
    except MlflowException:
        if client.get_run(run.info.run_id).info.lifecycle_stage == "active":
            raise
        return False
    return True


def _gather(client: "MlflowClient", parent: ParentRun, pipeline_run_id: str) -> None:
    """Heals what a process that was held up for longer than the settling time may have left: a second parent."""
    with mlflow_errors(client.tracking_uri):
        for child in _children(client, parent.experiment_id, pipeline_run_id):
            if child.data.tags.get(PARENT_RUN_TAG) != parent.run_id:
                client.set_tag(child.info.run_id, PARENT_RUN_TAG, parent.run_id)
        for run in _parents(client, parent.experiment_id, pipeline_run_id):
            if run.info.run_id != parent.run_id and OWN_PARENT_TAG in run.data.tags:
                client.delete_run(run.info.run_id)


def _parents(client: "MlflowClient", experiment: str, pipeline_run_id: str) -> "list[Run]":
    runs = client.search_runs([experiment], f"tags.`{PIPELINE_TAG}` = {quoted(pipeline_run_id)}")
    return sorted(
        (run for run in runs if PARENT_RUN_TAG not in run.data.tags),
        key=lambda run: (run.data.tags.get(OWN_PARENT_TAG) == PROPOSED, run.info.start_time, run.info.run_id),
    )


def _children(client: "MlflowClient", experiment: str, pipeline_run_id: str) -> "list[Run]":
    return list(client.search_runs([experiment], f"tags.`{CHILD_PIPELINE_TAG}` = {quoted(pipeline_run_id)}"))


def _as_parent(client: "MlflowClient", run: "Run") -> ParentRun:
    return ParentRun(run.info.run_id, run.info.experiment_id, OWN_PARENT_TAG in run.data.tags, client)
