"""Components in a pipeline that is not ours, with and without the settings of a cluster."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import json_format
from kfp.compiler import Compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from collabopt.components.image import IMAGE
from collabopt.pipelines.cluster import read_cluster
from collabopt.pipelines.placement import on_cluster

EVERY_SETTING = Path(__file__).parent / "golden" / "every_setting.yaml"


@pytest.fixture(scope="module")
def own_pipeline() -> Any:
    spec = importlib.util.spec_from_file_location("own_pipeline", Path(__file__).parent / "own_pipeline.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.own_pipeline


def executors(pipeline: Any, directory: Path) -> dict[str, dict[str, Any]]:
    """Executor -> its container and what Kubernetes is told of its pod."""
    Compiler().compile(pipeline, str(directory / "own.yaml"))
    spec, platform = yaml.safe_load_all((directory / "own.yaml").read_text())
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    assert spec["pipelineInfo"]["name"] == "own-pipeline"
    assert spec["pipelineInfo"]["description"].startswith("Prune as much")
    pods = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    return {
        label.removeprefix("exec-"): executor["container"] | pods.get(label, {})
        for label, executor in spec["deploymentSpec"]["executors"].items()
    }


def test_it_compiles_and_its_stages_know_their_run(own_pipeline: Any, tmp_path: Path):
    found = executors(own_pipeline, tmp_path)
    assert set(found) == {
        *("choose-sparsity", "load-dataset", "import-model", "prune"),
        *("sparsity-preserving-qat", "deployment-gate"),
    }
    for name, executor in found.items():
        ours = name != "choose-sparsity"
        assert (executor["image"] == IMAGE) == ours
        assert ("COLLABOPT_PIPELINE_RUN_ID" in str(executor.get("fieldPathAsEnv"))) == ours


def test_settings_of_a_cluster_reach_our_components_and_no_others(own_pipeline: Any, tmp_path: Path):
    cluster = read_cluster(EVERY_SETTING, ["stages.pqat.timeout=12h"])
    found = executors(on_cluster(own_pipeline, cluster), tmp_path)
    theirs = found.pop("choose-sparsity")
    assert set(theirs) == {"image", "command", "args"}
    assert theirs["image"] == "python:3.11"
    assert {executor["image"] for executor in found.values()} == {cluster.image}
    trains = {name for name, executor in found.items() if "accelerator" in executor["resources"]}
    assert trains == {"prune", "sparsity-preserving-qat"}
    assert found["sparsity-preserving-qat"]["activeDeadlineSeconds"] == str(12 * 3600)


def test_the_pipeline_itself_stays_as_it_was(own_pipeline: Any, tmp_path: Path):
    before = executors(own_pipeline, tmp_path)
    on_cluster(own_pipeline, read_cluster(EVERY_SETTING))
    assert executors(own_pipeline, tmp_path) == before
