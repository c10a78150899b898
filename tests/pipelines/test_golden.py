"""Compiled pipelines against what is in `golden/`, in a form that a person can read.

`make goldens` writes these files anew. They leave out the source text of components and the documentation of their
inputs, which other tests compare with what they are made from; whole files are parsed strictly here.
"""

import copy
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from google.protobuf import json_format
from kfp.pipeline_spec import pipeline_spec_pb2

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines import PIPELINES, SEARCH
from collabopt.pipelines.cluster import ClusterSettings, read_cluster
from collabopt.pipelines.compilation import build_pipeline, compile_pipeline

GOLDEN = Path(__file__).parent / "golden"
EVERY_SETTING = GOLDEN / "every_setting.yaml"
WRITE = bool(os.environ.get("COLLABOPT_WRITE_GOLDENS"))
# No release may change these files.
FIXED_IMAGE = ["image=registry.example.com/collabopt:1.0"]


def compiled(name: str, cluster: ClusterSettings, directory: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Both documents of a compiled pipeline, parsed strictly: a field that Kubeflow does not know is an error."""
    file = directory / "compiled.yaml"
    compile_pipeline(name, cluster, file)
    spec, platform = yaml.load_all(file.read_text(), yaml.CSafeLoader)
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())
    return spec, platform


def summary(spec: dict[str, Any], platform: dict[str, Any]) -> dict[str, Any]:
    """Parameters, tasks with what they take, and pods; what every pod has is said once."""
    kubernetes = platform["platforms"]["kubernetes"]
    pods = {
        label: pod(executor["container"]) | kubernetes["deploymentSpec"]["executors"][label]
        for label, executor in spec["deploymentSpec"]["executors"].items()
    }
    first = next(iter(pods.values()))
    common = {key: value for key, value in first.items() if all(other.get(key) == value for other in pods.values())}
    own = {label: {key: value for key, value in pod.items() if key not in common} for label, pod in pods.items()}
    return {
        "pipeline": spec["pipelineInfo"]["name"],
        "workflow": kubernetes.get("pipelineConfig", {}),
        "parameters": {
            name: parameter["defaultValue"]
            for name, parameter in spec["root"]["inputDefinitions"]["parameters"].items()
        },
        "every_pod": common,
        "tasks": tasks_of(spec["root"], spec["components"], own),
    }


def pod(container: dict[str, Any]) -> dict[str, Any]:
    shown = {key: value for key, value in container.items() if key not in ("command", "args")}
    if "resources" in shown:  # each amount is there twice: as text, and for old servers as a number
        shown["resources"] = {key: value for key, value in shown["resources"].items() if key.startswith("resource")} | {
            key: value for key, value in shown["resources"].items() if key == "accelerator"
        }
    return shown


def tasks_of(component: dict[str, Any], components: dict[str, Any], pods: dict[str, Any]) -> dict[str, Any]:
    tasks = component["dag"]["tasks"]
    names = {key: task["taskInfo"]["name"] for key, task in tasks.items()}
    shown = {}
    for key, task in tasks.items():
        entry: dict[str, Any] = {"component": task["componentRef"]["name"].removeprefix("comp-")}
        if "triggerPolicy" in task:
            entry["if"] = task["triggerPolicy"]["condition"]
        if "parameterIterator" in task:
            looped = task["inputs"]["parameters"][task["parameterIterator"]["items"]["inputParameter"]]
            entry["for_each"] = source(looped, names)
            entry["at_once"] = task["iteratorPolicy"]["parallelismLimit"]
        inner = components[task["componentRef"]["name"]]
        if "dag" in inner:
            entry["tasks"] = tasks_of(inner, components, pods)
        else:
            entry["inputs"] = {name: source(given, names) for name, given in inputs_of(task)}
            entry["cached"] = task["cachingOptions"].get("enableCache", False)
            entry["retryPolicy"] = task.get("retryPolicy", "never")
            entry["pod"] = pods[inner["executorLabel"]]
        shown[names[key]] = entry
    return shown


def inputs_of(task: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for kind in ("artifacts", "parameters"):
        yield from task.get("inputs", {}).get(kind, {}).items()


def source(given: dict[str, Any], names: dict[str, str]) -> Any:
    """Where an input comes from: `stage.output`, `{parameter}`, or a constant."""
    for kind, key in (("taskOutputArtifact", "outputArtifactKey"), ("taskOutputParameter", "outputParameterKey")):
        if kind in given:
            return f"{names[given[kind]['producerTask']]}.{given[kind][key]}"
    for kind in ("componentInputParameter", "componentInputArtifact"):
        if kind in given:
            part = given.get("parameterExpressionSelector", "").removeprefix("parseJson(string_value)")
            return f"{{{given[kind].removeprefix('pipelinechannel--')}{part}}}"
    return given["runtimeValue"]["constant"]


def check_golden(found: dict[str, Any], name: str) -> None:
    file = GOLDEN / name
    text = yaml.safe_dump(found, sort_keys=False, width=120)
    if WRITE:
        file.write_text(text, encoding="utf-8")
    assert yaml.safe_load(file.read_text(encoding="utf-8")) == found, "if this is meant, run `make goldens`"


@pytest.mark.parametrize("name", PIPELINES)
def test_a_pipeline_compiles_as_it_did(name: str, tmp_path: Path):
    check_golden(summary(*compiled(name, read_cluster(None, FIXED_IMAGE), tmp_path)), f"{name}.yaml")


def test_every_setting_is_seen_in_the_compiled_pipeline(tmp_path: Path):
    cluster = read_cluster(EVERY_SETTING)
    check_golden(summary(*compiled("exhaustive", cluster, tmp_path)), "exhaustive_with_every_setting.yaml")


@pytest.mark.parametrize("name", PIPELINES)
def test_settings_reach_every_pod_of_every_pipeline(name: str, tmp_path: Path):
    """Those below a condition too."""
    expected = yaml.safe_load((GOLDEN / "exhaustive_with_every_setting.yaml").read_text(encoding="utf-8"))["every_pod"]
    assert summary(*compiled(name, read_cluster(EVERY_SETTING), tmp_path))["every_pod"].items() >= expected.items()


def leaves_of(model: type, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every setting by its path; `*` stands for the keys of a mapping and the positions in a list."""
    for name, field in model.model_fields.items():
        yield from leaves_in(field.annotation, (*path, name))


def leaves_in(annotation: Any, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    if hasattr(annotation, "model_fields"):
        yield from leaves_of(annotation, path)
        return
    parts = [part for part in get_args(annotation) if part is not type(None)]
    models = [leaf for part in parts for leaf in leaves_in(part, path) if leaf != path]
    is_collection = getattr(annotation, "__origin__", None) in (dict, tuple)
    if models:
        yield from (((*path, "*", *leaf[len(path) :]) if is_collection else leaf) for leaf in models)
    else:
        yield path


# What every stage, all that train, and single ones may be given is one model: each of its settings counts once.
SCOPES = (("training",), ("all_stages",), ("stages", "*"))
SETTINGS = [path for path in leaves_of(ClusterSettings) if path[:1] not in (("all_stages",), ("stages",))]


def spots(values: Any, path: tuple[str, ...]) -> Iterator[tuple[Any, Any]]:
    """Every place of a document that a path with `*` leads to: what it lies in, and its key there."""
    if not isinstance(values, (dict, list)):
        return
    keys = (range(len(values)) if isinstance(values, list) else list(values)) if path[0] == "*" else [path[0]]
    for key in keys:
        if isinstance(values, dict) and key not in values:
            continue
        if len(path) == 1:
            yield values, key
        else:
            yield from spots(values[key], path[1:])


def others(value: Any) -> list[Any]:
    """Values of the same kind; which of them is legal is up to the settings."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [value + 1]
    if isinstance(value, list):
        return [value[1:], [*value, "another"]]
    if isinstance(value, dict):
        return [{**value, "example.com/another": "value"}]
    words = ["Always", "Exists", "Equal", "PreferNoSchedule"]
    if value[0].isdigit():
        return [str(int(value[0]) + 1) + value[1:]]
    return [word for word in (*words, f"{value}x") if word != value]


def variants(path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The settings with one of them changed, at each of its places and to each other value of its kind."""
    if path[0] == "training":
        for scope in SCOPES:
            yield from changed((*scope, *path[1:]))
    else:
        yield from changed(path)


def changed(path: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    for number in range(len(list(spots(yaml.safe_load(EVERY_SETTING.read_text()), path)))):
        values = yaml.safe_load(EVERY_SETTING.read_text())
        around, key = list(spots(values, path))[number]
        for other in others(around[key]) if around[key] is not None else []:
            around[key] = other
            yield copy.deepcopy(values)


def built(cluster: ClusterSettings, name: str) -> dict[str, Any]:
    pipeline = build_pipeline(name, cluster)
    return summary(json_format.MessageToDict(pipeline.pipeline_spec), json_format.MessageToDict(pipeline.platform_spec))


# The smallest pipeline that has a stage of every kind, and the one that some settings are about.
HAS_EVERY_KIND = "quantization"


@pytest.fixture(scope="module")
def with_every_setting() -> dict[str, dict[str, Any]]:
    return {name: built(read_cluster(EVERY_SETTING), name) for name in (HAS_EVERY_KIND, SEARCH)}


@pytest.mark.parametrize("path", SETTINGS, ids=".".join)
def test_no_setting_is_without_effect(
    path: tuple[str, ...], with_every_setting: dict[str, dict[str, Any]], tmp_path: Path
):
    name = SEARCH if path[0] == "search" else HAS_EVERY_KIND
    for values in variants(path):
        file = tmp_path / "cluster.yaml"
        file.write_text(yaml.safe_dump(values))
        try:
            cluster = read_cluster(file)
        except CollaboptError:
            continue  # not legal there; another place or another value is
        assert built(cluster, name) != with_every_setting[name], values
        return
    pytest.fail(f"give {'.'.join(path)} in {EVERY_SETTING.name}")
