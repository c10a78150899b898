"""Stages that are not trained: why, and what they leave to those below them and to the gate."""

import json

import pytest
from mlflow import MlflowClient

from collabopt.components.engine.records import MetricOfRecord, StageRecord, Step, read_skipped, write_record
from collabopt.components.engine.skipping import reason_to_skip
from collabopt.components.engine.stages import run_stage
from collabopt.components.engine.training.task import DEFAULT_TASK

BASELINE = Step(stage="baseline", technique="import_model")
PRUNED = Step(stage="pruned", technique="prune")
WHY = "predicted 'packed_bytes' is 9,000 B; accepted is at most 5,000 B"


def record(*lineage, digest="d"):
    metric = MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9)
    return StageRecord(lineage=list(lineage), task=DEFAULT_TASK, dataset_digest=digest, metric=metric)


@pytest.fixture
def run(data, tmp_path, monkeypatch):
    """Runs a stage below another one, or below a baseline that holds no model; returns its directory."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv("COLLABOPT_PROGRESS_FILE", str(tmp_path / "progress"))
    write_record(record(BASELINE, digest=data.spec.digest), tmp_path)

    def call(stage, technique, parent=tmp_path, skip=""):
        output = tmp_path / stage
        call.result = run_stage(
            technique,
            stage=stage,
            parent=str(parent),
            dataset=str(data.directory),
            output=str(output),
            task=DEFAULT_TASK,
            settings={},
            overrides={},
            skip=skip,
        )
        return output

    return call


@pytest.mark.parametrize(
    ("given", "parent", "reason"),
    [
        ("", record(BASELINE, PRUNED), ""),
        (WHY, record(BASELINE, PRUNED), WHY),
        (
            "",
            record(
                BASELINE, PRUNED.model_copy(update={"skipped": WHY}), Step(stage="c", technique="cluster", skipped="x")
            ),
            f"'pruned', which it stands below, was not trained: {WHY}",
        ),
        ("its own", record(BASELINE, PRUNED.model_copy(update={"skipped": WHY})), "its own"),
    ],
)
def test_a_stage_is_not_trained_for_a_reason_of_its_own_or_of_one_above_it(given, parent, reason):
    assert reason_to_skip(given, parent) == reason


def test_a_stage_that_is_not_trained_leaves_a_record_and_nothing_else(run):
    pruned = run("pruned", "prune", skip=WHY)
    assert [path.name for path in pruned.iterdir()] == ["skipped.json"]
    assert read_skipped(pruned).reason == WHY
    assert read_skipped(pruned).lineage[-1].settings["target_sparsity"] == 0.5
    assert run.result.metrics == {}
    assert run.result.metadata["skipped"] == WHY
    assert run.result.metadata["stage"] == "pruned"


def test_what_stands_below_it_is_not_trained_either_with_or_without_a_reason_of_its_own(run):
    pruned = run("pruned", "prune", skip=WHY)
    clustered = run("clustered", "sparsity_preserving_cluster", pruned)
    leaf = run("leaf", "sparsity_cluster_preserving_qat", clustered, skip="too large")
    assert read_skipped(clustered).reason == f"'pruned', which it stands below, was not trained: {WHY}"
    assert read_skipped(leaf).reason == "too large"
    assert [step.skipped for step in read_skipped(leaf).lineage] == [
        "",
        WHY,
        read_skipped(clustered).reason,
        "too large",
    ]


def test_mlflow_shows_it_with_the_reason_and_no_figures(run):
    run("pruned", "prune", skip=WHY)
    client = MlflowClient()
    (logged,) = client.search_runs(["0", *(each.experiment_id for each in client.search_experiments())])
    assert logged.data.tags["collabopt.skipped"] == WHY
    assert logged.data.tags["collabopt.stage"] == "pruned"
    assert logged.data.params["pruned.target_sparsity"] == "0.5"
    assert logged.data.metrics == {}
    assert logged.info.status == "FINISHED"
    assert [file.path for file in client.list_artifacts(logged.info.run_id)] == ["skipped.json"]


def test_whoever_watches_is_told(run, tmp_path):
    run("pruned", "prune", skip=WHY)
    events = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
    assert [(event["event"], event.get("message")) for event in events] == [("started", None), ("skipped", WHY)]
