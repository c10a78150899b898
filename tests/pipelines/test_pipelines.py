"""The pipelines as Kubeflow sees them: compiled, parsed back, and compared with the tree."""

import subprocess
import sys

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from collabopt.components.engine.bindings import BINDINGS, inputs_of
from collabopt.pipelines import PIPELINES, load_pipeline, parameters_of, stages_of
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, TREE

STANDARD = {"ptq", "qat", "pruned_ptq", "clustered_ptq"}
COLLABORATIVE = {"pqat", "pruned_clustered_ptq", "pcqat", "cqat"}


@pytest.fixture(scope="module", params=sorted(PIPELINES))
def compiled(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("compiled") / f"{request.param}.yaml"
    compiler.Compiler().compile(load_pipeline(request.param), str(path))
    spec, platform = yaml.safe_load_all(path.read_text())
    return request.param, spec, platform


def tasks_of(dag_component):
    """Display name -> task, of one DAG."""
    return {task["taskInfo"]["name"]: task for task in dag_component["dag"]["tasks"].values()}


def stage_tasks(spec):
    """Every task of every DAG by display name; a name may occur in several."""
    dags = [spec["root"], *(c for c in spec["components"].values() if "dag" in c)]
    return [(name, task) for dag in dags for name, task in tasks_of(dag).items()]


def test_both_documents_parse_strictly(compiled):
    _, spec, platform = compiled
    json_format.ParseDict(spec, pipeline_spec_pb2.PipelineSpec())
    json_format.ParseDict(platform, pipeline_spec_pb2.PlatformSpec())


def test_stages_of_the_pipeline_are_those_it_declares(compiled):
    name, spec, _ = compiled
    built = {task for task, _ in stage_tasks(spec)}
    assert set(stages_of(name)) <= built


def test_parameters_are_documented_and_have_the_declared_defaults(compiled):
    name, spec, _ = compiled
    inputs = spec["root"]["inputDefinitions"]["parameters"]
    assert {key: value["defaultValue"] for key, value in inputs.items()} == parameters_of(name)
    assert all(value.get("description") for value in inputs.values())


def test_the_run_reaches_stages_by_environment_and_never_as_an_argument(compiled):
    _, spec, platform = compiled
    executors = platform["platforms"]["kubernetes"]["deploymentSpec"]["executors"]
    assert set(executors) == set(spec["deploymentSpec"]["executors"])
    for executor in executors.values():
        assert {item["name"]: item["fieldPath"] for item in executor["fieldPathAsEnv"]} == {
            "COLLABOPT_PIPELINE_RUN_ID": "metadata.labels['pipeline/runid']",
            "COLLABOPT_PIPELINE_NAME": "metadata.labels['workflows.argoproj.io/workflow']",
        }
    assert "PIPELINE_JOB" not in yaml.safe_dump(spec)


def test_exhaustive_mirrors_the_tree(tmp_path):
    path = tmp_path / "exhaustive.yaml"
    compiler.Compiler().compile(load_pipeline("exhaustive"), str(path))
    root = next(yaml.safe_load_all(path.read_text()))["root"]
    tasks = tasks_of(root)
    assert set(tasks) == {"configure", "dataset", ROOT, "prescreen", "gate", *(stage.name for stage in TREE)}
    producers = {key: value["taskInfo"]["name"] for key, value in root["dag"]["tasks"].items()}
    for stage in TREE:
        parent = tasks[stage.name]["inputs"]["artifacts"]["parent"]["taskOutputArtifact"]["producerTask"]
        assert producers[parent] == stage.parent
    assert STANDARD | COLLABORATIVE | {ROOT, "dataset", "predictions"} == set(tasks["gate"]["inputs"]["artifacts"])


def test_staged_builds_the_collaborative_leaves_only_in_the_second_branch(tmp_path):
    path = tmp_path / "staged.yaml"
    compiler.Compiler().compile(load_pipeline("staged"), str(path))
    spec = next(yaml.safe_load_all(path.read_text()))
    assert set(tasks_of(spec["root"])) >= STANDARD
    assert not COLLABORATIVE & set(tasks_of(spec["root"]))
    conditions = [c for c in spec["components"].values() if "dag" in c and "gate" in tasks_of(c)]
    gates = sorted((tasks_of(c)["gate"]["inputs"]["artifacts"] for c in conditions), key=len)
    around = {ROOT, "dataset", "predictions"}
    assert [set(gate) for gate in gates] == [STANDARD | around, STANDARD | COLLABORATIVE | around]


@pytest.mark.parametrize(
    ("name", "leaves"),
    [
        ("pruning", {"pruned_ptq", "pqat", "pruned_clustered_ptq", "pcqat"}),
        ("clustering", {"clustered_ptq", "cqat"}),
        ("quantization", {"ptq", "qat"}),
    ],
)
def test_branches(name, leaves):
    assert {stage for stage in stages_of(name) if stage in STANDARD | COLLABORATIVE} == leaves


def test_every_technique_is_bound_to_parameters():
    parameters = Parameters()
    assert {stage.technique.name for stage in TREE} | {"load_dataset", "import_model"} == set(BINDINGS)
    assert inputs_of("prune", vars(parameters))["target_sparsity"] == parameters.sparsity


def test_authoring_imports_no_tensorflow(tmp_path):
    program = (
        "import sys\n"
        "from pathlib import Path\n"
        "from collabopt.pipelines import PIPELINES\n"
        "from collabopt.pipelines.cluster import read_cluster\n"
        "from collabopt.pipelines.compilation import compile_components, compile_pipeline\n"
        f"directory = Path({str(tmp_path)!r})\n"
        "compile_components(read_cluster(None), directory)\n"
        "for name in PIPELINES:\n"
        "    compile_pipeline(name, read_cluster(None), directory / f'{name}.yaml')\n"
        "heavy = {'tensorflow', 'tf_keras', 'keras', 'mlflow', 'numpy'} & set(sys.modules)\n"
        "sys.exit(f'imported: {heavy}' if heavy else 0)\n"
    )
    outcome = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr
