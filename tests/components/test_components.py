"""Every component's spec against what the engine, the tree and the metadata say."""

import inspect
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from google.protobuf import json_format
from kfp import compiler
from kfp.pipeline_spec import pipeline_spec_pb2

from collabopt import components
from collabopt.components.engine.settings import SETTINGS
from collabopt.components.engine.techniques import TECHNIQUES
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.components.image import IMAGE
from collabopt.pipelines.tree import ROOT, TREE

FOLDER = Path(components.__file__).parent


def inputs_of(name):
    return getattr(components, name).component_spec.inputs


def test_every_package_is_installed():
    """An editable installation has them all, whatever `pyproject.toml` says."""
    root = FOLDER.parent
    listed = set(tomllib.loads((root / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    folders = {path.parent for tree in ("components", "pipelines") for path in (root / tree).rglob("__init__.py")}
    assert listed == {".".join(("collabopt", *folder.relative_to(root).parts)) for folder in folders}


def test_every_component_folder_is_in_the_catalogue():
    folders = {path.parent.name for path in FOLDER.glob("*/component.py")}
    assert folders == set(components.CATALOGUE)


def test_every_technique_has_a_component_and_settings():
    assert set(TECHNIQUES) <= set(components.CATALOGUE)
    assert set(TECHNIQUES) | {"load_dataset"} == set(SETTINGS)


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_inputs_repeat_the_settings_and_their_defaults(name):
    signature = inspect.signature(getattr(components, name).python_func)
    for setting, field in SETTINGS[name].model_fields.items():
        assert signature.parameters[setting].default == field.default, setting


@pytest.mark.parametrize("name", components.CATALOGUE)
def test_the_task_defaults_to_classification(name):
    task = inspect.signature(getattr(components, name).python_func).parameters.get("task")
    assert task is None or task.default == DEFAULT_TASK


@pytest.mark.parametrize(
    ("name", "besides"),
    [
        ("assess_leaves", {"dataset"}),
        ("deployment_gate", {"dataset", "predictions", "search"}),
        ("propose_trials", {"dataset", "before"}),
    ],
)
def test_what_decides_takes_every_leaf_of_the_tree_and_nothing_else(name, besides):
    artifacts = {key for key, spec in inputs_of(name).items() if spec.type.startswith("system.")}
    assert artifacts == {ROOT, *besides, *(leaf.name for leaf in TREE.leaves())}


def test_configure_has_an_output_for_everything_that_can_be_set():
    outputs = components.configure.component_spec.outputs
    digests = {"model_digest", "data_digest"}
    assert set(outputs) == {"parameters", *digests, "dataset", ROOT, *(stage.name for stage in TREE)}


def test_prescreen_has_an_output_for_every_stage():
    assert set(components.prescreen.component_spec.outputs) == {
        "predictions",
        "metrics",
        *(stage.name for stage in TREE),
    }


@pytest.mark.parametrize("name", sorted(TECHNIQUES.keys() - {"import_model"}))
def test_every_stage_of_the_tree_can_be_left_untrained(name):
    assert inputs_of(name)["skip"].default == ""


@pytest.mark.parametrize("name", components.CATALOGUE)
def test_component_compiles_to_a_valid_spec_on_the_one_image(name, tmp_path):
    path = tmp_path / "component.yaml"
    compiler.Compiler().compile(getattr(components, name), str(path))
    document = next(yaml.safe_load_all(path.read_text()))
    spec = json_format.ParseDict(document, pipeline_spec_pb2.PipelineSpec())
    (executor,) = json_format.MessageToDict(spec.deployment_spec)["executors"].values()
    assert executor["container"]["image"] == IMAGE
    assert "pip install" not in str(executor["container"])


@pytest.mark.parametrize("name", components.CATALOGUE)
def test_inputs_are_documented(name):
    undocumented = {
        key
        for key, spec in inputs_of(name).items()
        if not spec.description and key not in set(leaf.name for leaf in TREE.leaves())
    }
    assert not undocumented


def checked_metadata(folder, day="2026-11-25"):
    """Runs the check of CI as on a given day."""
    script = FOLDER.parent / ".ci" / "component_metadata.py"
    command = [sys.executable, str(script), str(folder), "--on", day]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_metadata_follows_kubeflow_pipelines_components():
    outcome = checked_metadata(FOLDER)
    assert outcome.returncode == 0, outcome.stderr
    assert {path.parent.name for path in FOLDER.glob("*/metadata.yaml")} == set(components.CATALOGUE)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("name: prune", "name: prunes", "its folder is 'prune'"),
        ("stability: alpha", "stability: young", "experimental, alpha, beta, stable"),
        ("stability: alpha\n", "", "must be name, stability, dependencies, lastVerified"),
        ("name: prune\nstability: alpha", "stability: alpha\nname: prune", "in this order"),
        ("tags:", "labels:", "fields are"),
        ("name: Pipelines", "name: Katib", "must name Pipelines"),
        ("'>=2.17.0'", "'>=2.17'", "three numbers"),
        ("2026-11-23T00:00:00Z", "2026-11-23", "a moment"),
        ("2026-11-23T00:00:00Z", "2025-11-23T00:00:00Z", "more than a year"),
    ],
)
def test_metadata_that_departs_from_them_is_found(tmp_path, old, new, expected):
    text = (FOLDER / "prune" / "metadata.yaml").read_text()
    assert old in text
    (tmp_path / "prune").mkdir()
    (tmp_path / "prune" / "metadata.yaml").write_text(text.replace(old, new))
    outcome = checked_metadata(tmp_path)
    assert outcome.returncode == 1
    assert expected in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_readmes_are_generated_from_the_specs():
    script = FOLDER.parent / ".ci" / "component_readmes.py"
    outcome = subprocess.run([sys.executable, str(script), "--check"], capture_output=True, text=True, check=False)
    assert outcome.returncode == 0, outcome.stderr


def test_component_and_package_of_the_same_name_do_not_hide_each_other():
    from collabopt.components.prune import prune as from_package

    assert components.prune is from_package


def test_short_names_are_the_same_components():
    from collabopt.components import pcqat, prune, sparsity_cluster_preserving_qat

    assert pcqat is sparsity_cluster_preserving_qat
    assert prune is components.prune
    assert set(components.SHORT_NAMES.values()) <= set(components.CATALOGUE)
    assert not set(components.SHORT_NAMES) & set(components.CATALOGUE)


def test_unknown_component_names_the_known_ones():
    with pytest.raises(AttributeError, match=r"deployment_gate.*pcqat"):
        _ = components.prunne


def test_the_program_of_a_component_does_not_repeat_its_documentation():
    """It would double what Kubeflow keeps of a run, and a better word in it would empty its cache."""
    for name in components.CATALOGUE:
        spec = getattr(components, name).component_spec
        program = spec.implementation.container.command[-1]
        compile(program, name, "exec")
        assert "Args:" not in program
        assert all(text in program for text in ("def ", "from collabopt.components.engine"))
