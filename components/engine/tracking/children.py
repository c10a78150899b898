"""The runs below a parent: every stage of a pipeline run has one in the end, also a stage that came from a cache."""

import json
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from collabopt.components.engine.tracking.account import Account, complete
from collabopt.components.engine.tracking.parent import (
    CHILD_PIPELINE_TAG,
    PARENT_RUN_TAG,
    PIPELINE_RUN_ID_VARIABLE,
    ParentRun,
)
from collabopt.components.engine.tracking.stage import STAGE_TAG
from collabopt.components.engine.tracking.store import mlflow_errors, quoted

if TYPE_CHECKING:
    from mlflow.entities import Run

CACHED_TAG = "collabopt.cached_from"
# Names that Kubeflow gives to a stage's task which does not take its stage as an argument.
_TASK_NAMES = {"baseline": ("import-model", "import_model")}


def runs_below(parent: ParentRun) -> "list[Run]":
    """All runs of the stages of a pipeline run.

    KFP's native plugin nests them: a branch or a loop has a run of its own.
    """
    with mlflow_errors(parent.client.tracking_uri):
        return list(_descendants(parent, parent.run_id))


def complete_stage(parent: ParentRun, below: "Sequence[Run]", stage: str, account: Account, logged_by: str) -> None:
    """Gives a finished stage a run below the parent that shows all of its account, and nothing twice.

    A stage that came from a cache has logged nothing in this pipeline run: it gets a run that names the one which did,
    and which holds its files. A run that MLflow's failing has left incomplete is completed.

    Args:
        parent: The run of the whole pipeline.
        below: Its `runs_below`.
        stage: Name of the stage.
        account: What its run has to show.
        logged_by: Id of the run that the stage logged to when it ran; "" where that is not known.

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    client = parent.client
    run = _run_of(stage, below, logged_by)
    cached_from = {CACHED_TAG: logged_by or "unknown"}
    if run is None:
        tags = {STAGE_TAG: stage, PARENT_RUN_TAG: parent.run_id, "mlflow.source.name": "collabopt", **cached_from}
        if pipeline_run_id := os.environ.get(PIPELINE_RUN_ID_VARIABLE):
            tags[CHILD_PIPELINE_TAG] = pipeline_run_id
        with mlflow_errors(client.tracking_uri):
            run = client.create_run(parent.experiment_id, run_name=stage, tags=tags)
    if CACHED_TAG in run.data.tags or (logged_by and run.info.run_id != logged_by):
        account = Account(
            tags={**account.tags, **cached_from},
            params=account.params,
            metrics=account.metrics,
            epochs=account.epochs,
        )
    complete(client, run, account)
    if run.info.status != "FINISHED":
        with mlflow_errors(client.tracking_uri):
            client.set_terminated(run.info.run_id, "FINISHED")


def _descendants(parent: ParentRun, run_id: str) -> "Iterator[Run]":
    found = parent.client.search_runs([parent.experiment_id], f"tags.`{PARENT_RUN_TAG}` = {quoted(run_id)}")
    for run in found:
        yield run
        if not parent.owned and STAGE_TAG not in run.data.tags and "stage" not in run.data.params:
            yield from _descendants(parent, run.info.run_id)


def _run_of(stage: str, below: "Sequence[Run]", logged_by: str) -> "Run | None":
    own = [run for run in below if run.info.run_id == logged_by]
    tagged = [run for run in below if run.data.tags.get(STAGE_TAG) == stage]
    # The plugin tags no run of a task; it logs the task's arguments as JSON.
    of_plugin = [run for run in below if STAGE_TAG not in run.data.tags and _is_task_of(stage, run)]
    return next(iter([*own, *tagged, *of_plugin]), None)


def _is_task_of(stage: str, run: "Run") -> bool:
    names = (stage, *_TASK_NAMES.get(stage, ()))
    return run.data.params.get("stage") == json.dumps(stage) or run.info.run_name in names
