"""The run of one stage."""

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.stage_names import split_name
from collabopt.components.engine.tracking import entries
from collabopt.components.engine.tracking.account import Account, complete, log_path
from collabopt.components.engine.tracking.parent import (
    CHILD_PIPELINE_TAG,
    INJECTED_RUN_ID_VARIABLE,
    PARENT_RUN_TAG,
    PIPELINE_RUN_ID_VARIABLE,
    parent_of_this_process,
)
from collabopt.components.engine.tracking.store import (
    connect,
    experiment_id,
    little_patience,
    mlflow_errors,
    quoted,
)

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

STAGE_TAG = "collabopt.stage"


@dataclass
class StageRun:
    """The MLflow run of the stage that this process executes.

    Where MLflow is not `required`, its first failure is the last: it is reported to the stage's log, and nothing more
    is logged until `catch_up`.

    Attributes:
        stage: Name of the stage.
        run_id: MLflow run id.
        experiment_id: MLflow experiment id.
        client: For what the methods do not cover.
        required: Whether a failure of MLflow is an error.
        lost: What MLflow failed with, after which nothing has been logged; "" while all is well.
    """

    stage: str
    run_id: str
    experiment_id: str
    client: "MlflowClient" = field(repr=False, compare=False)
    required: bool = True
    lost: str = ""
    _account: Account = field(default_factory=Account, repr=False, compare=False)

    def log_params(self, params: Mapping[str, object]) -> None:
        """Logs params as `<stage>.<name>`.

        Never under their bare names: KFP's native plugin logs component inputs under those, and MLflow refuses a whole
        batch in which one param has another value.
        """
        named = stage_params(self.stage, params)
        self._account.params |= named
        self._tell(lambda: entries.log_params(self.client, self.run_id, named))

    def log_epoch(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Logs the metrics of one epoch; epochs count from 1."""
        self._account.epochs[epoch] = dict(metrics)
        self._tell(lambda: entries.log_epochs(self.client, self.run_id, {epoch: metrics}))

    def log_metrics(self, metrics: Mapping[str, float]) -> None:
        """Logs metrics of the finished stage."""
        self._account.metrics |= metrics
        self._tell(lambda: entries.log_metrics(self.client, self.run_id, metrics))

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Sets tags, overwriting those of the same name."""
        self._account.tags |= tags
        self._tell(lambda: entries.set_tags(self.client, self.run_id, tags))

    def log_artifact(self, path: str | Path) -> None:
        """Logs a file, or a directory under its own name."""
        self._account.paths.append(Path(path))
        self._tell(lambda: log_path(self.client, self.run_id, Path(path)))

    def catch_up(self) -> None:
        """Logs what MLflow has missed since it failed, if it is back; else `lost` stays as a reason."""
        if self.lost:
            self.lost = ""
            self._tell(self._complete)

    def end(self, status: str) -> None:
        """Ends the run as `FINISHED` or `FAILED`; one that has lost something is left open, for the gate to complete.

        Raises:
            CollaboptError: MLflow fails, and it is required or the stage has failed.
        """
        if status == "FINISHED":
            self._tell(lambda: self._terminate(status))
        else:
            with little_patience():
                self._terminate(status)

    def _complete(self) -> None:
        with mlflow_errors(self.client.tracking_uri):
            run = self.client.get_run(self.run_id)
        complete(self.client, run, self._account)

    def _terminate(self, status: str) -> None:
        with mlflow_errors(self.client.tracking_uri):
            self.client.set_terminated(self.run_id, status)

    def _tell(self, log: Callable[[], None]) -> None:
        if self.required:
            log()
            return
        if self.lost:
            return
        try:
            with little_patience():
                log()
        except CollaboptError as error:
            self.lost = error.what
            print(
                f"warning: {error.what}; stage '{self.stage}' goes on without it, its record is completed later",
                file=sys.stderr,
                flush=True,
            )

    @property
    def ids(self) -> dict[str, str]:
        """`run_id` and `experiment_id`, as stage records keep them."""
        return {"run_id": self.run_id, "experiment_id": self.experiment_id}


@contextlib.contextmanager
def stage_run(stage: str, *, tags: Mapping[str, str] | None = None, required: bool = False) -> Iterator[StageRun]:
    """Opens the MLflow run of a stage, below the parent run of its pipeline run.

    A stage that is retried resumes its run. Where KFP's native plugin has made a run for the task (`MLFLOW_RUN_ID`),
    that run is used, under the name it has. Outside of a pipeline run (no `COLLABOPT_PIPELINE_RUN_ID`) the run has no
    parent.

    MLflow must be there when a stage starts, when there is nothing to lose yet. If it goes away later, the stage does
    not fail with it.

    Args:
        stage: Name of the stage; also of the run.
        tags: Tags to set on the run.
        required: Whether MLflow failing later is an error too.

    Yields:
        The run. It ends as FINISHED, or as FAILED when the block raises.

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    client = connect()
    run = _open(client, stage)
    tags = {STAGE_TAG: stage, **(tags or {})}
    entries.set_tags(client, run.info.run_id, tags)
    opened = StageRun(stage, run.info.run_id, run.info.experiment_id, client, required=required)
    try:
        yield opened
    except BaseException as error:
        try:
            opened.end("FAILED")
        except CollaboptError as unlogged:
            error.add_note(f"MLflow was not told of the failure: {unlogged.what}")
        raise
    opened.end("FINISHED")


def stage_params(stage: str, params: Mapping[str, object]) -> dict[str, object]:
    """Params under the names that they have on a stage's run: `<stage>.<name>`, the same in all trials of a search."""
    return {f"{split_name(stage)[0]}.{name}": value for name, value in params.items()}


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
