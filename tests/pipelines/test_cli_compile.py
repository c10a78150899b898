"""`collabopt compile`, as a user calls it."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import components as kfp_components
from kfp.pipeline_spec import pipeline_spec_pb2

from collabopt import components
from collabopt.pipelines import PIPELINES
from tests.pipelines.refusal import refused

Command = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize("name", PIPELINES)
def test_every_pipeline_compiles_and_tells_its_size(collabopt: Command, name: str):
    code, output, _ = collabopt("compile", name, "-o", "compiled.yaml")
    assert code == 0
    size = Path("compiled.yaml").stat().st_size
    assert output == f"compiled.yaml: {size:,} bytes; etcd takes 1,572,864 for a run with its state\n"
    specification = next(yaml.load_all(Path("compiled.yaml").read_text(), yaml.CSafeLoader))
    assert specification["pipelineInfo"]["name"] == name


def test_options_win_over_the_file(collabopt: Command):
    Path("cluster.yaml").write_text("image: a.example/b:1\nall_stages: {cpu: {request: 500m, limit: 2}}\n")
    assert collabopt("compile", "quantization", "-o", "x.yaml", "--cluster", "cluster.yaml")[0] == 0
    before = next(yaml.load_all(Path("x.yaml").read_text(), yaml.CSafeLoader))["deploymentSpec"]["executors"]
    options = ["--cluster-set", "image=a.example/b:2", "--cluster-set", "all_stages.cpu.limit=3"]
    assert collabopt("compile", "quantization", "-o", "x.yaml", "--cluster", "cluster.yaml", *options)[0] == 0
    after = next(yaml.load_all(Path("x.yaml").read_text(), yaml.CSafeLoader))["deploymentSpec"]["executors"]
    assert {container["container"]["image"] for container in before.values()} == {"a.example/b:1"}
    assert {container["container"]["image"] for container in after.values()} == {"a.example/b:2"}
    resources = after["exec-quantize-aware-train"]["container"]["resources"]
    assert (resources["resourceCpuRequest"], resources["resourceCpuLimit"]) == ("500m", "3")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["prunin", "-o", "x.yaml"], ["unknown pipeline", "did you mean 'pruning'", "staged"]),
        (["pruning", "-o", "x.txt"], ["'.txt'", ".yaml or .yml"]),
        (["pruning", "-o", "x.json"], ["'.json'"]),
        (["pruning", "-o", "nowhere/x.yaml"], ["cannot be written", "nowhere/x.yaml"]),
        (["pruning", "-o", "/proc/x.yaml"], ["cannot be written", "/proc/x.yaml"]),
        (["pruning", "-o", "old/file.yaml/x.yaml"], ["cannot be written"]),
        (["pruning", "-o", "old"], ["not ''", "old"]),
        (["pruning", "-o", "x.yaml", "--cluster", "none.yaml"], ["none.yaml", "cluster-schema"]),
        (["pruning", "-o", "x.yaml", "--cluster-set", "imagee=x"], ["unknown key 'imagee'", "image_pull_policy"]),
        (["--components", "nowhere/far"], ["cannot be written", "nowhere/far"]),
        (["--components", "old/file.yaml"], ["a file is where", "old/file.yaml"]),
        (["--components", "new", "--cluster-set", "image=A B"], ["image", "registry.example.com/name:tag"]),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_what_cannot_be_compiled_is_refused(collabopt: Command, arguments: list[str], expected: list[str]):
    Path("old").mkdir()
    Path("old/file.yaml").write_text("kept")
    refused(collabopt("compile", *arguments), *expected, left=["old"])
    assert Path("old/file.yaml").read_text() == "kept"


@pytest.mark.parametrize(
    "arguments",
    [
        ["pruning"],
        ["-o", "x.yaml"],
        [],
        ["pruning", "--components", "out"],
        ["--components", "out", "-o", "x.yaml"],
        ["pruning", "-o", "x.yaml", "--cluster"],
    ],
    ids=" ".join,
)
def test_half_a_command_and_two_commands_are_usage_errors(collabopt: Command, arguments: list[str]):
    code, _, errors = collabopt("compile", *arguments)
    assert code == 2
    assert "Traceback" not in errors
    assert os.listdir() == []


def test_a_pipeline_that_fails_to_compile_leaves_the_old_file(collabopt: Command, monkeypatch: pytest.MonkeyPatch):
    from kfp.compiler import Compiler

    def half(self: object, pipeline: object, path: str) -> None:
        Path(path).write_text("half")
        raise OSError(28, "No space left on device")

    Path("x.yaml").write_text("old")
    monkeypatch.setattr(Compiler, "compile", half)
    refused(collabopt("compile", "pruning", "-o", "x.yaml"), "No space left on device", left=["x.yaml"])
    assert Path("x.yaml").read_text() == "old"


def test_every_component_is_published_on_the_image_of_the_cluster(collabopt: Command):
    code, output, _ = collabopt("compile", "--components", "out", "--cluster-set", "image=registry.example.com/own:1")
    assert code == 0
    assert output.splitlines() == [f"out/{name}.yaml" for name in components.CATALOGUE]
    for name in components.CATALOGUE:
        file = Path("out") / f"{name}.yaml"
        loaded = kfp_components.load_component_from_file(str(file))
        ours = getattr(components, name).component_spec
        assert (loaded.component_spec.inputs or {}).keys() == (ours.inputs or {}).keys()
        assert (loaded.component_spec.outputs or {}).keys() == (ours.outputs or {}).keys()
        spec = json_format.ParseDict(yaml.safe_load(file.read_text()), pipeline_spec_pb2.PipelineSpec())
        (executor,) = json_format.MessageToDict(spec.deployment_spec)["executors"].values()
        assert executor["container"]["image"] == "registry.example.com/own:1"
        assert ours.implementation.container.image != "registry.example.com/own:1"


def test_components_are_written_all_or_none(collabopt: Command, monkeypatch: pytest.MonkeyPatch):
    from kfp.compiler import Compiler

    compile_one = Compiler.compile

    def all_but_the_last(self: Compiler, component: object, path: str) -> None:
        if path.endswith("deployment_gate.yaml"):
            raise OSError(28, "No space left on device")
        compile_one(self, component, path)

    monkeypatch.setattr(Compiler, "compile", all_but_the_last)
    refused(collabopt("compile", "--components", "out"), "No space left on device", left=[])
    Path("out").mkdir()
    Path("out/prune.yaml").write_text("old")
    refused(collabopt("compile", "--components", "out"), "No space left on device", left=["out"])
    assert os.listdir("out") == ["prune.yaml"]
    assert Path("out/prune.yaml").read_text() == "old"


def test_the_schema_of_the_settings_describes_every_field(collabopt: Command):
    code, output, _ = collabopt("cluster-schema")
    schema = json.loads(output)
    assert code == 0
    models = [schema, *schema["$defs"].values()]
    assert all(field.get("description") for model in models for field in model["properties"].values())


@pytest.mark.parametrize(
    ("model", "field", "right", "wrong"),
    [
        ("CpuAmount", "limit", "500m", "2 cores"),
        ("MemoryAmount", "limit", "4Gi", "4 GB"),
        ("StageSettings", "timeout", "1h30m", "2 hours"),
    ],
)
def test_the_schema_finds_what_the_settings_would_refuse(
    collabopt: Command, model: str, field: str, right: str, wrong: str
):
    """A pattern of JSON schema may match anywhere in a text."""
    kinds = json.loads(collabopt("cluster-schema")[1])["$defs"][model]["properties"][field]["anyOf"]
    pattern = next(kind["pattern"] for kind in kinds if "pattern" in kind)
    assert re.search(pattern, right)
    assert not re.search(pattern, wrong)
