"""What a pipeline's pods need of a cluster: one YAML file, with single settings overridden on the command line."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.validation import Checked, list_as_tuple, refuse, refuse_secret, validated
from collabopt.components.engine.validation import Path as KeyPath
from collabopt.components.engine.yaml_lines import place_in, read_yaml
from collabopt.pipelines.kubernetes_values import (
    Cpu,
    Duration,
    Image,
    Labels,
    LabelValue,
    Memory,
    Name,
    Names,
    QualifiedName,
    SecretKey,
    memory_bytes,
    millicores,
)
from collabopt.pipelines.path_overrides import override, parse_overrides
from collabopt.pipelines.tree import ROOT, TREE

MLFLOW_SECRET = "kfp-mlflow-credentials"
"""The Secret that Kubeflow's own MLflow plugin takes its credentials from, wherever it has any."""

CONFIGURE = "configure"
STAGES = (CONFIGURE, "dataset", ROOT, "prescreen", *(stage.name for stage in TREE), "assess", "gate")
_TRAINING = {stage.name for stage in TREE if stage.trains}
# Labels that Kubeflow and Argo read; stages learn their run from one of them.
_RESERVED_LABELS = ("pipeline/", "pipelines.kubeflow.org/", "workflows.argoproj.io/")

# Of a user or a group, as Kubernetes takes it.
_HIGHEST_ID = 2**31 - 1

_WHAT = "the cluster configuration"
_EXAMPLE_LINE = "image: registry.example.com/collabopt:1.0"


class CpuAmount(Checked):
    """Processors of a stage."""

    request: Cpu | None = Field(default=None, description="Processors set aside for the pod, as 2 or 500m.")
    limit: Cpu | None = Field(default=None, description="The most that it may use.")


class MemoryAmount(Checked):
    """Memory of a stage."""

    request: Memory | None = Field(default=None, description="Memory set aside for the pod, as 4Gi.")
    limit: Memory | None = Field(default=None, description="The most that it may use before it is killed.")


class Gpu(Checked):
    """Accelerators of a stage; both fields are needed."""

    type: QualifiedName | None = Field(
        default=None, description="Resource name under which the cluster offers them, as nvidia.com/gpu."
    )
    count: int | None = Field(default=None, ge=1, le=1024, description="How many. A stage trains on all that it has.")


class Toleration(Checked):
    """A taint that the pod is let onto nodes in spite of; as in a pod's specification."""

    key: QualifiedName | None = Field(default=None, description="Key of the taint; none for every taint.")
    operator: Literal["Equal", "Exists"] = Field(
        default="Equal", description="Whether the taint's value must be the same, or any value will do."
    )
    value: LabelValue | None = Field(default=None, description="Value of the taint; for Equal.")
    effect: Literal["NoSchedule", "PreferNoSchedule", "NoExecute"] | None = Field(
        default=None, description="Effect of the taint; none for every effect."
    )
    duration: Duration | None = Field(
        default=None, description="How long the pod stays once the node is tainted NoExecute; none for ever."
    )

    @model_validator(mode="after")
    def _is_one_that_kubernetes_takes(self) -> "Toleration":
        if self.operator == "Exists" and self.value is not None:
            refuse("operator Exists takes any value; leave `value` out", "value")
        if self.operator == "Equal" and self.key is None:
            refuse("name the taint's key, or write operator: Exists for every taint")
        if self.duration is not None and self.effect != "NoExecute":
            refuse("only for effect: NoExecute", "duration")
        return self


class Retries(Checked):
    """How often a stage that failed is tried again.

    Kubeflow has retries for a stage that failed, whatever the reason: it hands Argo a limit and a backoff, and neither
    `retryPolicy` nor `expression` (kubeflow/pipelines backend/src/v2/compiler/argocompiler/container.go). Argo then
    tries every pod again whose main container Kubernetes marks as failed: out of memory, evicted, past its timeout,
    and also with an error of the program that will only come back. Hence:

    - `configure`, which refuses whatever is wrong with parameters, settings and policy before anything is loaded, is
      never tried again, unless `stages.configure.retries` asks for it.
    - Another stage that fails on its input does so before it trains: a retry costs a start of its pod, and a wait.
    - A stage that is tried again goes on in its MLflow run, and the gate's promotion where it was interrupted.
    """

    count: int | None = Field(default=None, ge=0, le=100, description="How often at most; 0 for never.")
    backoff: Duration = Field(default=60, description="Wait before the first retry.")
    factor: int = Field(default=2, ge=1, le=10, description="How many times longer each wait is than the one before.")
    within: Duration = Field(
        default=7 * 24 * 3600,
        description="Counted from the start of the first attempt: after that no retry begins, and one that runs is "
        "ended. Kubeflow's own default is an hour, too short for a stage that trains.",
    )


class StageSettings(Checked):
    """What the pod of one stage needs."""

    cpu: CpuAmount | None = Field(default=None, description="Processors.")
    memory: MemoryAmount | None = Field(default=None, description="Memory.")
    gpu: Gpu | None = Field(default=None, description="GPUs; null for none.")
    node_selector: Labels | None = Field(default=None, description="Labels that a node must have.")
    tolerations: Annotated[tuple[Toleration, ...], BeforeValidator(list_as_tuple)] | None = Field(
        default=None, description="Taints of nodes that do not keep the pod away."
    )
    timeout: Duration | None = Field(
        default=None,
        description="How long one attempt may take, from when the pod is on a node, pulling the image included.",
    )
    retries: Retries | None = Field(default=None, description="Whether a stage that failed is tried again.")


class MlflowCredentials(Checked):
    """Where stages find what they log in to MLflow with. A Secret or a key that does not exist is passed over."""

    secret: Name = Field(default=MLFLOW_SECRET, description="Name of the Secret, in the namespace of the run.")
    username_key: SecretKey = Field(default="username", description="Its key with MLFLOW_TRACKING_USERNAME.")
    password_key: SecretKey = Field(default="password", description="Its key with MLFLOW_TRACKING_PASSWORD.")
    token_key: SecretKey = Field(default="token", description="Its key with MLFLOW_TRACKING_TOKEN.")


def _server_address(uri: str) -> str:
    if uri == "databricks":
        return uri
    parts = urlsplit(uri)
    if "@" in parts.netloc or parts.query:
        refuse_secret("an address with credentials; keep these in the Secret that mlflow.credentials names")
    if parts.scheme not in ("http", "https") or not parts.netloc:
        refuse("is no address of a server that every pod can reach; write http://... or https://...")
    return uri


ServerAddress = Annotated[str, AfterValidator(_server_address)]


class Mlflow(Checked):
    """Where stages log to. Where Kubeflow's MLflow plugin tells them already, nothing of it is needed."""

    tracking_uri: ServerAddress | None = Field(default=None, description="MLFLOW_TRACKING_URI: http(s)://...")
    registry_uri: ServerAddress | None = Field(
        default=None, description="MLFLOW_REGISTRY_URI, where it is another server."
    )
    experiment_name: str | None = Field(default=None, min_length=1, description="MLFLOW_EXPERIMENT_NAME.")
    credentials: MlflowCredentials | None = Field(
        default=MlflowCredentials(), description="The Secret with the credentials; null for none."
    )


class Gcs(Checked):
    """What stages read gs:// and write releases with. Nothing of it is needed with workload identity."""

    secret: Name | None = Field(
        default=None, description="Secret with the key file of a service account, mounted into every pod."
    )
    key: SecretKey = Field(default="key.json", description="Its key with the file.")

    @model_validator(mode="after")
    def _has_a_secret(self) -> "Gcs":
        if self.secret is None and "key" in self.model_fields_set:
            refuse("a key of which Secret? give `secret` too", "key")
        return self


class Security(Checked):
    """The user that stages run as. What an administrator of Kubeflow has set wins."""

    run_as_non_root: bool | None = Field(default=True, description="Whether the kubelet refuses an image of root's.")
    run_as_user: int | None = Field(
        default=None, ge=0, le=_HIGHEST_ID, description="User id; none for the image's, 1001."
    )
    run_as_group: int | None = Field(
        default=None, ge=0, le=_HIGHEST_ID, description="Group id; none for the image's, 0."
    )

    @model_validator(mode="after")
    def _is_not_both(self) -> "Security":
        if self.run_as_user == 0 and self.run_as_non_root:
            refuse("0 is root; write another user, or run_as_non_root: false", "run_as_user")
        return self


class Workflow(Checked):
    """The run as a whole."""

    deadline: Duration | None = Field(default=None, description="How long the whole run may take.")
    ttl: Duration | None = Field(
        default=None,
        description="How long the workflow and its pods are kept when it has ended; artifacts, MLflow runs and the "
        "run in Kubeflow stay.",
    )
    ttl_after_success: Duration | None = Field(default=None, description="Instead of `ttl`, where it succeeded.")
    ttl_after_failure: Duration | None = Field(default=None, description="Instead of `ttl`, where it failed.")


class SearchWaves(Checked):
    """How a search is spread over the cluster; the pipeline `search` is compiled with it."""

    waves: int = Field(
        default=4,
        ge=1,
        le=8,  # more make the compiled pipeline larger than what etcd takes
        description="Waves of trials after the default configuration, each learning from the ones before it.",
    )
    trials_at_once: int = Field(default=3, ge=1, le=64, description="Most trials of a wave, all trained side by side.")

    @property
    def most_trials(self) -> int:
        """Of a whole search, the default configuration included."""
        return 1 + self.waves * self.trials_at_once


class ClusterSettings(Checked):
    """What a pipeline's pods need of a cluster.

    Every stage gets `all_stages`, the stages that train get what `training` says beyond that, and `stages` has the
    last word on single ones. Of mappings only the keys that are given are replaced; lists are replaced as a whole;
    null takes a setting back.
    """

    image: Image | None = Field(
        default=None,
        description="Image of every stage; none for COLLABOPT_IMAGE, else the published one of this release. "
        "Kubeflow's cache tells images apart by this text: give every build a tag, or a digest.",
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = Field(
        default=None, description="When nodes pull the image; none for Kubernetes' default."
    )
    image_pull_secrets: Names = Field(default=(), description="Secrets that the image is pulled with.")
    labels: Labels = Field(default={}, description="Labels of every pod.")
    security: Security = Field(default=Security(), description="The user that stages run as.")
    mlflow: Mlflow = Field(default=Mlflow(), description="Where stages log to.")
    gcs: Gcs = Field(default=Gcs(), description="What stages use Google Cloud Storage with.")
    workflow: Workflow = Field(default=Workflow(), description="Deadline of the run, and how long it is kept.")
    search: SearchWaves = Field(default=SearchWaves(), description="How a search is spread over the cluster.")
    all_stages: StageSettings = Field(default=StageSettings(), description="What every stage's pod needs.")
    training: StageSettings = Field(
        default=StageSettings(), description=f"The stages that train: {', '.join(sorted(_TRAINING))}."
    )
    stages: dict[str, StageSettings] = Field(
        default={}, description=f"Single stages by name: {', '.join(STAGES)}. Those a pipeline lacks are passed over."
    )

    @model_validator(mode="after")
    def _holds_together(self) -> "ClusterSettings":
        for key in self.labels:
            if key.startswith(_RESERVED_LABELS):
                refuse("Kubeflow sets labels of this kind itself", "labels", key)
        for name in self.stages:
            if name not in STAGES:
                refuse(f"there is no stage '{name}'; stages: {', '.join(STAGES)}", "stages", name)
        for name in STAGES:
            for key, problem in _contradictions(self.of_stage(name, trains=name in _TRAINING)):
                refuse(problem, *self._narrowest_scope(name, key), key)
        return self

    def of_stage(self, name: str, *, trains: bool) -> StageSettings:
        """What one stage's pod needs.

        Args:
            name: Name of the stage.
            trains: Whether its weights are fine-tuned.
        """
        common = self.all_stages.model_dump(exclude_unset=True)
        if name == CONFIGURE:
            common.pop("retries", None)
        scopes = [common]
        if trains:
            scopes.append(self.training.model_dump(exclude_unset=True))
        if name in self.stages:
            scopes.append(self.stages[name].model_dump(exclude_unset=True))
        merged: dict[str, Any] = {}
        for scope in scopes:
            override(merged, scope)
        return StageSettings.model_validate(merged)

    def _narrowest_scope(self, name: str, key: str) -> KeyPath:
        if name in self.stages and key in self.stages[name].model_fields_set:
            return "stages", name
        if name in _TRAINING and key in self.training.model_fields_set:
            return ("training",)
        return ("all_stages",)


def read_cluster(file: Path | None, overrides: Sequence[str] = ()) -> ClusterSettings:
    r"""Reads the settings of a cluster.

    Args:
        file: YAML in UTF-8; None for the defaults.
        overrides: `PATH=VALUE` each, as `training.gpu.count=1`, over what the file says. VALUE is YAML; a dot within a
            key is written `\.`.

    Raises:
        CollaboptError: The file cannot be read, an override is malformed, or the settings are not valid; the message
            names keys, lines and what is legal.
    """
    given = parse_overrides(overrides, "--cluster-set")
    values, lines = read_yaml(_text(file), str(file), _WHAT, _EXAMPLE_LINE) if file else ({}, {})
    for path, value in given.items():
        override(values, _nested(path, value))

    def place_of(path: KeyPath) -> str:
        texts = tuple(map(str, path))
        near = (other for other in given if other[: len(texts)] == texts or texts[: len(other)] == other)
        found = next(near, None)
        return f"--cluster-set {'.'.join(found)}" if found else place_in(path, lines)

    source = str(file) if file else "--cluster-set"
    return validated(ClusterSettings, values, what=_WHAT, source=source, place_of=place_of, legal=_legal)


def cluster_schema() -> dict[str, Any]:
    """The JSON schema of cluster settings, for editors and other programs."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **ClusterSettings.model_json_schema()}


def _contradictions(stage: StageSettings) -> Iterator[tuple[str, str]]:
    """Key and reason of whatever in the settings of one stage does not go together."""
    if stage.gpu and (stage.gpu.type is None or stage.gpu.count is None):
        yield "gpu", "give both `type`, as nvidia.com/gpu, and `count`"
    for key, amount, measure in (("cpu", stage.cpu, millicores), ("memory", stage.memory, memory_bytes)):
        if amount and amount.request and amount.limit and measure(amount.request) > measure(amount.limit):
            yield key, f"the request {amount.request} is above the limit {amount.limit}"
    if stage.retries and stage.retries.count is None:
        yield "retries", "give `count`"
    if stage.retries and stage.retries.count and stage.timeout and stage.retries.within <= stage.timeout:
        yield "retries", f"`within` is counted from the first attempt, which alone may take {stage.timeout} s (timeout)"


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CollaboptError(
            f"{_WHAT} cannot be read: {reason}",
            where=str(file),
            todo="pass a YAML file; `collabopt cluster-schema` prints what it may hold",
        ) from error


def _nested(path: Sequence[str], value: object) -> dict[str, Any]:
    for key in reversed(path):
        value = {key: value}
    assert isinstance(value, dict)
    return value


def _legal(paths: Sequence[KeyPath]) -> str:
    """The keys at every place where something is wrong."""
    return "; ".join(dict.fromkeys(map(_keys_around, paths)))


def _keys_around(path: KeyPath) -> str:
    model: type[Checked] = ClusterSettings
    where: list[str] = []
    here: list[str] = []
    for part in map(str, path[:-1]):
        here.append(part)
        field = model.model_fields.get(part)
        inner = _model_in(field.annotation) if field else None
        if field and inner is not None:
            model, where = inner, [*here, "NAME"] if get_origin(field.annotation) is dict else list(here)
    of = f"of {'.'.join(where)}" if where else f"of {_WHAT}"
    return f"keys {of}: {', '.join(model.model_fields)}"


def _model_in(annotation: Any) -> type[Checked] | None:
    """The model that a field's type consists of, through optional, lists and mappings."""
    if isinstance(annotation, type) and issubclass(annotation, Checked):
        return annotation
    return next((model for part in get_args(annotation) if (model := _model_in(part))), None)
