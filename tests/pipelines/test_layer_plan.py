"""Settings of single layers on the command line: `--plan`, and `--set STAGE.layers=JSON`."""

from collections.abc import Callable
from pathlib import Path

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.arguments import pipeline_arguments
from tests.pipelines.refusal import refused

Command = Callable[..., tuple[int, str, str]]

PLAN = """\
prune: {"block1_*": {target_sparsity: 0.8}, conv: exclude}
cluster: {dense: {number_of_clusters: 8}}
"""
PRUNE = {"block1_*": {"target_sparsity": 0.8}, "conv": "exclude"}
CLUSTER = {"dense": {"number_of_clusters": 8}}


def settings_of(plan: Path, *settings: str) -> object:
    return pipeline_arguments(pipeline="exhaustive", model="m", data="d", plan=plan, settings=settings)["settings"]


@pytest.fixture
def plan(tmp_path: Path) -> Path:
    path = tmp_path / "plan.yaml"
    path.write_text(PLAN)
    return path


def test_a_plan_becomes_settings_of_the_stages_that_prune_or_cluster(plan: Path):
    assert settings_of(plan) == {
        "pruned": {"layers": PRUNE},
        "clustered": {"layers": CLUSTER},
        "pruned_clustered": {"layers": CLUSTER},
    }


def test_a_setting_of_a_stage_goes_before_the_plan_and_leaves_the_other_stages_to_it(plan: Path):
    own = '{"conv": {"number_of_clusters": 4}, "d*": "exclude"}'
    assert settings_of(plan, f"clustered.layers={own}", "pruned.epochs=2", "ptq.seed=1") == {
        "pruned": {"layers": PRUNE, "epochs": 2},
        "clustered": {"layers": {"conv": {"number_of_clusters": 4}, "d*": "exclude"}},
        "pruned_clustered": {"layers": CLUSTER},
        "ptq": {"seed": 1},
    }


def test_a_plan_that_sparsity_preserving_clustering_cannot_keep_is_refused(plan: Path):
    plan.write_text("cluster: {dense: {number_of_clusters: 2}}\n")
    with pytest.raises(CollaboptError, match=r"'pruned_clustered'.*layers.dense.number_of_clusters=2"):
        settings_of(plan)


@pytest.mark.parametrize(
    "command",
    [
        ["run", "--example", "digits"],
        ["prescreen", "--example", "digits"],
        ["submit", "--example", "digits"],
        ["schedule", "--example", "digits", "--every", "6h"],
    ],
    ids=lambda command: command[0],
)
def test_every_command_that_takes_a_plan_reads_it_before_anything_starts(collabopt: Command, command: list[str]):
    Path("plan.yaml").write_text("prune:\n  conv: {target_sparsity: 2}\n")
    result = collabopt(*command, "--plan", "plan.yaml")
    refused(result, "prune.conv.target_sparsity", "plan.yaml, line 2", left=["plan.yaml"])


def test_layers_of_a_setting_are_checked(collabopt: Command):
    result = collabopt("run", "--example", "digits", "--set", 'pruned.layers={"conv": {"target_sparsity": 1}}')
    refused(result, "stage 'pruned'", "layers.conv.target_sparsity=1: Input should be less than 1", left=[])
