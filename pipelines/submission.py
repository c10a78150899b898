"""What is to run on a cluster, checked and compiled before anything is sent, and how it is started there."""

import json
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import EXAMPLE_SCHEME, GCS_SCHEME, TASK_SOURCE
from collabopt.pipelines import parameters_of
from collabopt.pipelines.arguments import parse_parameters, pipeline_arguments
from collabopt.pipelines.search_arguments import search_arguments

if TYPE_CHECKING:
    from kfp_server_api import V2beta1Run

    from collabopt.pipelines.cluster import ClusterSettings
    from collabopt.pipelines.kubeflow import Kubeflow

EXPERIMENT_VARIABLE = "KF_PIPELINES_DEFAULT_EXPERIMENT_NAME"
DEFAULT_EXPERIMENT = "collabopt"
FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS = 1.0, 20.0

_SUCCEEDED = "SUCCEEDED"
# kfp's own wait_for_run_completion waits for ever on a run that was cancelled.
_ENDED = {_SUCCEEDED, "FAILED", "SKIPPED", "CANCELED"}
# A run takes hours; a server that is being replaced is not the end of it.
_FAILURES_IN_A_ROW = 20


@dataclass(frozen=True)
class Submission:
    """What is to run, with which arguments, and as whom.

    Attributes:
        pipeline: Name of the pipeline.
        specification: The compiled pipeline as the API takes it.
        arguments: Values of its parameters.
        experiment: Kubeflow's experiment to run in; made if there is none of that name.
        service_account: Kubernetes service account of the pods; "" for the namespace's default.
        mlflow_experiment: MLflow experiment that Kubeflow's MLflow plugin logs to; "" for its default.
    """

    pipeline: str
    specification: Mapping[str, Any]
    arguments: Mapping[str, object]
    experiment: str
    service_account: str = ""
    mlflow_experiment: str = ""

    @property
    def model_name(self) -> str:
        """Name under which the winner is registered and released."""
        return str(self.arguments.get("model_name", parameters_of(self.pipeline)["model_name"]))

    def fields(self, experiment_id: str) -> dict[str, Any]:
        """The fields that a run and a recurring run of Kubeflow's API have in common."""
        from kfp_server_api import V2beta1RuntimeConfig

        # kfp.Client has no argument for what Kubeflow's plugins are told.
        plugins = {"mlflow": {"experiment_name": self.mlflow_experiment}} if self.mlflow_experiment else None
        return {
            "experiment_id": experiment_id,
            "pipeline_spec": self.specification,
            "runtime_config": V2beta1RuntimeConfig(parameters=dict(self.arguments)),
            "service_account": self.service_account or None,
            "plugins_input": plugins,
        }


def plan_submission(
    *,
    pipeline: str,
    model: str,
    data: str,
    task: str | None = None,
    policy: Path | None = None,
    name: str | None = None,
    releases: str | None = None,
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    plan: Path | None = None,
    space: Path | None = None,
    experiment: str | None = None,
    service_account: str | None = None,
    mlflow_experiment: str | None = None,
    cache: bool = True,
    cluster: Path | None = None,
    cluster_overrides: Sequence[str] = (),
) -> Submission:
    """Turns what the command line says into what can be sent; sends nothing.

    Args:
        pipeline: Name of a pipeline.
        model: `gs://` URI of the trained model, or `example://NAME`.
        data: `gs://` URI of the data, `task`, or `example://NAME`.
        task: Import path of the task in the image; None for the pipeline's default.
        policy: File with the gate's policy; None for the pipeline's default.
        name: Name of the registered model; None for the pipeline's default.
        releases: `gs://` URI where releases are kept; None for the MLflow registry alone.
        settings: `stage.parameter=value` each.
        parameters: `parameter=value` each, of the pipeline.
        plan: File with settings of single layers; None for none.
        space: File with the space of a search; None for the default one.
        experiment: Kubeflow's experiment; None for `KF_PIPELINES_DEFAULT_EXPERIMENT_NAME`, else `collabopt`.
        service_account: Kubernetes service account of the pods; None for the namespace's default.
        mlflow_experiment: MLflow experiment; None for that of the cluster's settings.
        cache: Whether unchanged stages may come from Kubeflow's cache.
        cluster: File with the cluster's settings; None for the defaults.
        cluster_overrides: `path=value` each, over that file.

    Raises:
        CollaboptError: The first problem that is found.
    """
    parameters = list(parameters)
    arguments = pipeline_arguments(
        pipeline=pipeline,
        model=_reachable(model, "--model"),
        data=_reachable(data, "--data"),
        task=task,
        policy=policy,
        name=name,
        settings=settings,
        parameters=parameters,
        plan=plan,
    )
    from collabopt.pipelines.cluster import read_cluster

    pods = read_cluster(cluster, cluster_overrides)
    given = parse_parameters(parameters, parameters_of(pipeline))
    arguments |= search_arguments(pipeline, arguments, given, space, pods.search)
    if releases is not None:
        arguments["releases"] = _bucket(releases, "--releases")
    if mlflow_experiment is not None:
        # Where Kubeflow's MLflow plugin is not installed, the stages find the experiment by themselves.
        pods = pods.model_copy(update={"mlflow": pods.mlflow.model_copy(update={"experiment_name": mlflow_experiment})})
    specification = _compiled(pipeline, pods)
    if not cache:
        _forbid_cache(specification)
    return Submission(
        pipeline=pipeline,
        specification=specification,
        arguments=arguments,
        experiment=experiment or os.environ.get(EXPERIMENT_VARIABLE) or DEFAULT_EXPERIMENT,
        service_account=service_account or "",
        mlflow_experiment=pods.mlflow.experiment_name or "",
    )


def submit(kubeflow: "Kubeflow", submission: Submission, run_name: str | None = None) -> str:
    """Starts a run.

    Args:
        kubeflow: The server.
        submission: What to run.
        run_name: Name of the run; None for one of model, pipeline and time.

    Returns:
        The run's id.

    Raises:
        CollaboptError: The server refuses or cannot be reached.
    """
    from kfp_server_api import V2beta1Run

    moment = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    body = V2beta1Run(
        display_name=run_name or f"{submission.model_name} {submission.pipeline} {moment}",
        **submission.fields(experiment_id(kubeflow, submission.experiment)),
    )
    return str(kubeflow.ask("create the run", kubeflow.client.runs.run_service_create_run, body).run_id)


def experiment_id(kubeflow: "Kubeflow", name: str) -> str:
    """The id of Kubeflow's experiment of a name, which is made if there is none.

    Raises:
        CollaboptError: The server refuses or cannot be reached.
    """
    from kfp_server_api import V2beta1Experiment

    equal = {"operation": "EQUALS", "key": "display_name", "string_value": name}
    found = kubeflow.ask(
        f"look up experiment '{name}'",
        kubeflow.client.experiments.experiment_service_list_experiments,
        namespace=kubeflow.namespace,
        filter=json.dumps({"predicates": [equal]}),
    )
    for experiment in found.experiments or ():
        if experiment.display_name == name:
            return str(experiment.experiment_id)
    body = V2beta1Experiment(display_name=name, namespace=kubeflow.namespace or None)
    create = kubeflow.client.experiments.experiment_service_create_experiment
    return str(kubeflow.ask(f"create experiment '{name}'", create, body).experiment_id)


def wait_for(kubeflow: "Kubeflow", run_id: str) -> None:
    """Returns when a run has succeeded. Meanwhile the server may be unavailable for some minutes.

    Raises:
        CollaboptError: It ended otherwise, or the server cannot be asked any more; the run itself goes on then.
    """
    from collabopt.pipelines.kubeflow import Unavailable

    seconds, failures, state, run = FIRST_WAIT_SECONDS, 0, "", None
    while state not in _ENDED:
        try:
            run = kubeflow.ask("see how the run is getting on", kubeflow.client.runs.run_service_get_run, run_id)
            failures, state = 0, run.state
        except Unavailable:
            failures += 1
            if failures > _FAILURES_IN_A_ROW:
                raise
        if state not in _ENDED:
            time.sleep(seconds)
            seconds = min(2 * seconds, LONGEST_WAIT_SECONDS)
    if state != _SUCCEEDED:
        raise CollaboptError(
            f"the run ended as {state.lower()}{_why(run)}", where=kubeflow.link("runs", run_id), todo="see its logs"
        )


def _why(run: "V2beta1Run") -> str:
    tasks = (run.run_details and run.run_details.task_details) or ()
    failed = sorted({task.display_name for task in tasks if task.state == "FAILED" and task.display_name})
    stages = f"; failed: {', '.join(failed)}" if failed else ""
    return f"{stages}: {run.error.message}" if run.error and run.error.message else stages


def _reachable(source: str, option: str) -> str:
    if source.startswith(EXAMPLE_SCHEME) or (option == "--data" and source == TASK_SOURCE):
        return source
    return _bucket(source, option)


def _bucket(uri: str, option: str) -> str:
    bucket, _, path = uri.removeprefix(GCS_SCHEME).partition("/")
    if not uri.startswith(GCS_SCHEME):
        raise CollaboptError(
            "the pods of a cluster see gs:// only, not the files of this machine",
            where=f"{option} {uri}",
            todo=f"copy it to a bucket (gcloud storage cp -r) and pass {option} gs://bucket/path",
        )
    if not bucket or not path:
        raise CollaboptError(
            "this URI lacks a bucket or a path", where=f"{option} {uri}", todo="write it as gs://bucket/path"
        )
    return uri


def _compiled(pipeline: str, cluster: "ClusterSettings") -> dict[str, Any]:
    from collabopt.pipelines.compilation import compile_pipeline

    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "pipeline.yaml"
        compile_pipeline(pipeline, cluster, file)
        documents = list(yaml.load_all(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    # What needs Kubernetes is a document of its own, and then both go below a name.
    return documents[0] if len(documents) == 1 else {"pipeline_spec": documents[0], "platform_spec": documents[1]}


def _forbid_cache(specification: Mapping[str, Any]) -> None:
    """Takes no task's result from the cache. kfp.Client's `enable_caching` leaves out those below a condition."""
    pipeline = specification.get("pipeline_spec", specification)
    for graph in (pipeline["root"], *pipeline["components"].values()):
        for task in graph.get("dag", {}).get("tasks", {}).values():
            task["cachingOptions"] = {"enableCache": False}
