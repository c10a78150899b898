"""Cluster settings on the tasks of a pipeline: what every pod that runs a component of ours gets."""

import functools
from typing import Any

from kfp import dsl, kubernetes
from kfp.dsl.graph_component import GraphComponent
from kfp.dsl.pipeline_context import Pipeline

from collabopt.components.engine.techniques import TECHNIQUES
from collabopt.components.image import IMAGE
from collabopt.pipelines.cluster import ClusterSettings, Gcs, Mlflow, Retries, Security, StageSettings, Workflow

GCS_MOUNT = "/secrets/gcs"


def on_cluster(pipeline: GraphComponent, cluster: ClusterSettings) -> GraphComponent:
    """Builds a pipeline again, with these settings on every task that runs a component of collabopt.

    Args:
        pipeline: Any function decorated with `dsl.pipeline`; it stays as it is. Its tasks are known to
            `cluster.stages` by their display names. What it sets itself and the settings leave open, remains.
        cluster: The settings.
    """
    body = pipeline.pipeline_func

    @functools.wraps(body)
    def build(*args: Any, **kwargs: Any) -> Any:
        outputs = body(*args, **kwargs)
        for task in Pipeline.get_default_pipeline().tasks.values():
            if task.container_spec is not None and task.container_spec.image == IMAGE:
                _place(task, cluster)
        return outputs

    spec = pipeline.component_spec
    config = _pipeline_config(cluster.workflow)
    return dsl.pipeline(name=spec.name, description=spec.description, pipeline_config=config)(build)


def _place(task: dsl.PipelineTask, cluster: ClusterSettings) -> None:
    technique = TECHNIQUES.get(task.component_spec.name.replace("-", "_"))
    stage = cluster.of_stage(_name_of(task), trains=technique is not None and technique.trains)
    _set_image(task, cluster)
    _set_resources(task, stage)
    _set_nodes(task, stage)
    _set_security(task, cluster.security)
    _tell_mlflow(task, cluster.mlflow)
    _mount_gcs_key(task, cluster.gcs)
    for key, value in cluster.labels.items():
        kubernetes.add_pod_label(task, key, value)
    if stage.timeout:
        kubernetes.set_timeout(task, stage.timeout)
    if stage.retries and stage.retries.count:
        _set_retries(task, stage.retries)


def _name_of(task: dsl.PipelineTask) -> str:
    """The stage's name: what Kubeflow shows."""
    return task._task_spec.display_name or task.name  # kfp can set the display name and not tell it


def _set_image(task: dsl.PipelineTask, cluster: ClusterSettings) -> None:
    if cluster.image:
        task.set_container_image(cluster.image)
    if cluster.image_pull_policy:
        kubernetes.set_image_pull_policy(task, cluster.image_pull_policy)
    if cluster.image_pull_secrets:
        kubernetes.set_image_pull_secrets(task, list(cluster.image_pull_secrets))


def _set_resources(task: dsl.PipelineTask, stage: StageSettings) -> None:
    if stage.cpu and stage.cpu.request:
        task.set_cpu_request(stage.cpu.request)
    if stage.cpu and stage.cpu.limit:
        task.set_cpu_limit(stage.cpu.limit)
    if stage.memory and stage.memory.request:
        task.set_memory_request(stage.memory.request)
    if stage.memory and stage.memory.limit:
        task.set_memory_limit(stage.memory.limit)
    if stage.gpu:
        task.set_accelerator_type(stage.gpu.type).set_accelerator_limit(stage.gpu.count)


def _set_nodes(task: dsl.PipelineTask, stage: StageSettings) -> None:
    for key, value in (stage.node_selector or {}).items():
        kubernetes.add_node_selector(task, key, value)
    for toleration in stage.tolerations or ():
        kubernetes.add_toleration(
            task,
            key=toleration.key,
            operator=toleration.operator,
            value=toleration.value,
            effect=toleration.effect,
            toleration_seconds=toleration.duration,
        )


def _set_security(task: dsl.PipelineTask, security: Security) -> None:
    given = {name: value for name, value in security if value is not None}
    if given:
        kubernetes.set_security_context(task, **given)


def _tell_mlflow(task: dsl.PipelineTask, mlflow: Mlflow) -> None:
    variables = {
        "MLFLOW_TRACKING_URI": mlflow.tracking_uri,
        "MLFLOW_REGISTRY_URI": mlflow.registry_uri,
        "MLFLOW_EXPERIMENT_NAME": mlflow.experiment_name,
    }
    for name, value in variables.items():
        if value:
            task.set_env_variable(name, value)
    if mlflow.credentials:
        keys = {
            mlflow.credentials.username_key: "MLFLOW_TRACKING_USERNAME",
            mlflow.credentials.password_key: "MLFLOW_TRACKING_PASSWORD",
            mlflow.credentials.token_key: "MLFLOW_TRACKING_TOKEN",
        }
        kubernetes.use_secret_as_env(task, mlflow.credentials.secret, keys, optional=True)


def _mount_gcs_key(task: dsl.PipelineTask, gcs: Gcs) -> None:
    if gcs.secret:
        kubernetes.use_secret_as_volume(task, gcs.secret, GCS_MOUNT)
        task.set_env_variable("GOOGLE_APPLICATION_CREDENTIALS", f"{GCS_MOUNT}/{gcs.key}")


def _set_retries(task: dsl.PipelineTask, retries: Retries) -> None:
    task.set_retry(
        retries.count,
        backoff_duration=f"{retries.backoff}s",
        backoff_factor=retries.factor,
        backoff_max_duration=f"{retries.within}s",
    )


def _pipeline_config(workflow: Workflow) -> dsl.PipelineConfig:
    return dsl.PipelineConfig(
        ttl_seconds_after_finished=workflow.ttl,
        ttl_seconds_after_success=workflow.ttl_after_success,
        ttl_seconds_after_failure=workflow.ttl_after_failure,
        active_deadline_seconds=workflow.deadline,
    )
