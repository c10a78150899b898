"""Cluster settings: what they accept, what they refuse and how, and which stage gets what."""

import re
from pathlib import Path

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.cluster import STAGES, ClusterSettings, read_cluster
from collabopt.pipelines.tree import TREE


def refusal(overrides: list[str], file: Path | None = None) -> str:
    with pytest.raises(CollaboptError) as refused:
        read_cluster(file, overrides)
    return str(refused.value)


def cluster_file(directory: Path, text: str) -> Path:
    file = directory / "cluster.yaml"
    file.write_text(text)
    return file


def test_nothing_given_is_the_defaults(tmp_path: Path):
    assert read_cluster(None, []) == ClusterSettings()
    assert read_cluster(cluster_file(tmp_path, "# nothing yet\n"), []) == ClusterSettings()


def test_an_override_wins_over_the_file_and_leaves_its_neighbours(tmp_path: Path):
    file = cluster_file(tmp_path, "training: {gpu: {type: nvidia.com/gpu, count: 1}, timeout: 2h}\n")
    settings = read_cluster(file, ["training.gpu.count=4"]).of_stage("qat", trains=True)
    assert (settings.gpu.type, settings.gpu.count, settings.timeout) == ("nvidia.com/gpu", 4, 7200)


def test_dots_in_a_key_are_escaped_and_values_are_yaml():
    settings = read_cluster(
        None,
        [
            r"training.node_selector.cloud\.google\.com/gke-accelerator=nvidia-l4",
            "training.tolerations=[{key: nvidia.com/gpu, operator: Exists}]",
            "labels.team='1'",
            "security.run_as_non_root=false",
            "mlflow.credentials=null",
        ],
    )
    assert settings.training.node_selector == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    assert settings.training.tolerations[0].operator == "Exists"
    assert settings.labels == {"team": "1"}
    assert settings.security.run_as_non_root is False
    assert settings.mlflow.credentials is None


def test_a_stage_takes_from_all_stages_then_training_then_its_own():
    settings = read_cluster(
        None,
        [
            "all_stages.cpu={request: 500m, limit: 1}",
            "all_stages.node_selector.pool=small",
            "all_stages.tolerations=[{key: a}]",
            "training.cpu.limit=8",
            "training.gpu={type: nvidia.com/gpu, count: 1}",
            "training.node_selector.zone=b",
            "stages.pcqat.cpu.limit=16",
            "stages.pcqat.tolerations=[{key: b}]",
            "stages.pruned.gpu=null",
        ],
    )
    for name in STAGES:
        trains = name in {stage.name for stage in TREE if stage.trains}
        stage = settings.of_stage(name, trains=trains)
        assert stage.cpu.request == "500m"
        assert stage.cpu.limit == {True: "8", False: "1"}[trains] if name != "pcqat" else "16"
        assert (stage.gpu is not None) == (trains and name != "pruned")
        assert stage.node_selector == ({"pool": "small", "zone": "b"} if trains else {"pool": "small"})
        assert [toleration.key for toleration in stage.tolerations] == (["b"] if name == "pcqat" else ["a"])


def test_configure_is_tried_again_only_where_it_is_named():
    common = ["all_stages.retries.count=3"]
    assert read_cluster(None, common).of_stage("configure", trains=False).retries is None
    assert read_cluster(None, common).of_stage("gate", trains=False).retries.count == 3
    named = read_cluster(None, [*common, "stages.configure.retries.count=1"])
    assert named.of_stage("configure", trains=False).retries.count == 1


def test_retries_leave_time_for_a_training():
    """Kubeflow's own limit, an hour from the start of the first attempt, would end a longer stage's second one."""
    retries = read_cluster(None, ["training.retries.count=1"]).of_stage("qat", trains=True).retries
    assert retries.within >= 24 * 3600


@pytest.mark.parametrize(
    ("text", "seconds"), [("45", 45), ("90s", 90), ("45m", 2700), ("2h", 7200), ("1h30m", 5400), ("7d", 604800)]
)
def test_durations(text: str, seconds: int):
    assert read_cluster(None, [f"workflow.deadline={text}"]).workflow.deadline == seconds


@pytest.mark.parametrize(
    "override",
    [
        "all_stages.cpu.limit=0.5",
        "all_stages.cpu.limit=2",
        "all_stages.memory.limit=536870912",
        "all_stages.memory.limit=2G",
        "image=localhost:5000/collabopt",
        "image=ghcr.io/a/b@sha256:" + "0" * 64,
        "labels.team=''",
        "labels.example\\.com/team=vision",
        "mlflow.tracking_uri=databricks",
        "mlflow.tracking_uri=http://mlflow.mlflow.svc.cluster.local:5000/prefix",
        "all_stages.tolerations=[{operator: Exists}]",
    ],
)
def test_what_kubernetes_takes_is_accepted(override: str):
    read_cluster(None, [override])


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        (["training.gpuu.count=1"], ["unknown key 'gpuu'", "--cluster-set training.gpuu.count", "keys of training:"]),
        (["training.gpu.kind=x"], ["unknown key 'kind'", "keys of training.gpu: type, count"]),
        (["stages.pqat.gpu.kind=x"], ["keys of stages.pqat.gpu: type, count"]),
        (["all_stages.tolerations=[{kee: x}]"], ["unknown key 'kee'", "keys of all_stages.tolerations", "operator"]),
        (
            ["stages.pqatt.timeout=1h"],
            ["no stage 'pqatt'", "clustered_ptq", "gate", "keys of stages.NAME: cpu, memory"],
        ),
        (["all_stages.cpu.limit=2 cores"], ["all_stages.cpu.limit: '2 cores'", "500m"]),
        (["all_stages.cpu.limit=0"], ["all_stages.cpu.limit", "no amount of processors"]),
        (["all_stages.cpu.limit=0.5m"], ["no amount of processors"]),
        (["all_stages.cpu.limit=true"], ["all_stages.cpu.limit: True", "string"]),
        (["all_stages.memory.limit=4GB"], ["'4GB'", "Ki, Mi, M, Gi, G"]),
        (["all_stages.memory.limit=1.5Gi"], ["'1.5Gi'", "whole number"]),
        (["all_stages.memory.limit=4"], ["too little memory", "4Gi"]),
        (["all_stages.memory={request: 4Gi, limit: 4G}"], ["the request 4Gi is above the limit 4G"]),
        (["all_stages.cpu.request=1500m", "training.cpu.limit=1"], ["training.cpu", "1500m is above the limit 1"]),
        (["training.gpu.count=1"], ["training.gpu", "give both `type`, as nvidia.com/gpu, and `count`"]),
        (["training.gpu.type=nvidia.com/gpu"], ["training.gpu", "give both"]),
        (["training.gpu={type: nvidia.com/gpu, count: 0}"], ["training.gpu.count: 0", "greater than or equal to 1"]),
        (["training.gpu={type: nvidia.com/gpu, count: 99999999999999999999}"], ["less than or equal to 1024"]),
        (["security.run_as_user=99999999999999999999"], ["security.run_as_user", "2147483647"]),
        (["security.run_as_group=2147483648"], ["security.run_as_group", "2147483647"]),
        (["training.gpu={type: nvidia.com/gpu, count: 1.5}"], ["training.gpu.count: 1.5", "integer"]),
        (["training.timeout=2 hours"], ["training.timeout: '2 hours'", "1h30m"]),
        (["training.timeout=0"], ["training.timeout: 0", "greater than 0"]),
        (["workflow.ttl=0s"], ["workflow.ttl", "greater than 0"]),
        (["workflow.ttl=99999d"], ["workflow.ttl", "2147483647"]),
        (["all_stages.retries.backoff=1m"], ["all_stages.retries", "give `count`"]),
        (["all_stages.retries.count=-1"], ["all_stages.retries.count", "greater than or equal to 0"]),
        (["all_stages.retries={count: 1, factor: 1.5}"], ["all_stages.retries.factor: 1.5", "integer"]),
        (["all_stages.retries={count: 1, within: 1h}", "training.timeout=2h"], ["within", "7200 s (timeout)"]),
        (["image=A B"], ["image: 'A B'", "registry.example.com/name:tag"]),
        (["image=https://ghcr.io/a/b"], ["no image reference"]),
        (["image_pull_policy=always"], ["'Always', 'IfNotPresent' or 'Never'"]),
        (["image_pull_secrets=login"], ["image_pull_secrets: 'login'", "must be a list"]),
        (["image_pull_secrets=[Login_1]"], ["image_pull_secrets[0]: 'Login_1'", "lower-case"]),
        (["labels.team=true"], ["labels.team: True", "string"]),
        (["labels.team=a b"], ["labels.team: 'a b'", "in quotes"]),
        (["labels.-x=a"], ["labels.-x: '-x'", "no key of a label"]),
        ([r"labels.pipeline/runid=x"], ["labels.pipeline/runid", "Kubeflow sets"]),
        (["all_stages.tolerations=[{operator: Exists, value: x}]"], ["tolerations[0].value: 'x'", "leave `value` out"]),
        (["all_stages.tolerations=[{effect: NoSchedule}]"], ["tolerations[0]", "operator: Exists"]),
        (["all_stages.tolerations=[{key: a, duration: 5m}]"], ["tolerations[0].duration", "NoExecute"]),
        (["security={run_as_user: 0}"], ["security.run_as_user: 0", "run_as_non_root: false"]),
        (["gcs.key=k.json"], ["gcs.key: 'k.json'", "`secret`"]),
        (["mlflow.tracking_uri=sqlite:///mlflow.db"], ["mlflow.tracking_uri", "every pod can reach"]),
        (["mlflow.experiment_name=''"], ["mlflow.experiment_name", "at least 1 character"]),
        (["image"], ["'image' does not read as a setting", "PATH=VALUE"]),
        (["a..b=1"], ["'a..b' does not read as a setting"]),
        (["image=a/b:1", "image=a/b:2"], ["'image' is set twice"]),
        (["image=[1"], ["does not read as a value"]),
        (["training=1"], ["training: 1", "must map keys to values"]),
        (["image.tag=1"], ["image:", "string"]),
    ],
    ids=lambda value: " ".join(value),
)
def test_what_kubernetes_or_kubeflow_would_refuse_is_refused_here(overrides: list[str], expected: list[str]):
    message = refusal(overrides)
    for text in expected:
        assert text in message


@pytest.mark.parametrize("uri", ["https://ann:s3cret@mlflow.example.com", "https://mlflow.example.com/?token=s3cret"])
@pytest.mark.parametrize("key", ["tracking_uri", "registry_uri"])
def test_a_credential_is_refused_and_not_repeated(key: str, uri: str, tmp_path: Path):
    file = cluster_file(tmp_path, f"image: a/b:1\nmlflow:\n  {key}: {uri}\n")
    for message in (refusal([f"mlflow.{key}={uri}"]), refusal([], file)):
        assert f"mlflow.{key}" in message
        assert "credentials" in message
        assert "s3cret" not in message
    assert "(line 3)" in refusal([], file)


def test_a_problem_is_found_by_file_line_and_key(tmp_path: Path):
    file = cluster_file(tmp_path, "image: a/b:1\ntraining:\n  gpu:\n    cuont: 1\n  timeout: 5 h\n")
    message = refusal([], file)
    assert f"where: {file}" in message
    assert "unknown key 'cuont' (line 4)" in message
    assert "training.timeout: '5 h' (line 5)" in message
    assert re.search(r"to do: .*keys of training.gpu: type, count", message)


def test_a_file_that_is_no_mapping_of_settings_is_refused(tmp_path: Path):
    assert "line 1" in refusal([], cluster_file(tmp_path, "- image\n"))
    assert "twice" in refusal([], cluster_file(tmp_path, "image: a/b:1\nimage: a/b:2\n"))
    assert "not valid YAML" in refusal([], cluster_file(tmp_path, "image: [\n"))
    assert "cannot be read" in refusal([], tmp_path / "missing.yaml")
    assert "cannot be read" in refusal([], tmp_path)
