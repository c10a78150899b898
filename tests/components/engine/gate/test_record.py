"""The comparison in MLflow: a run for every stage, also where it came from a cache, once and complete."""

from pathlib import Path

import pytest

from collabopt.components.engine.gate.candidates import read_candidates
from collabopt.components.engine.gate.record import complete_stages
from collabopt.components.engine.records import read_leaf_report, read_stage_record, write_record
from collabopt.components.engine.tracking import open_parent, stage_run

STAGES = {"baseline", "pruned", "ptq", "pqat"}


@pytest.fixture
def leaves(examples, make_leaf):
    """Two leaves as stages write them: with a curve, and with the figures of the stages above."""
    made = {"ptq": make_leaf(examples[0], 0.88), "pqat": make_leaf(examples[1], 0.7, stage="pqat")}
    for directory in made.values():
        report = read_leaf_report(directory)
        steps = [
            step.model_copy(update={"metrics": {"accuracy": 0.9, "sparsity": 0.5}}) for step in report.lineage[:-1]
        ]
        write_record(report.model_copy(update={"lineage": [*steps, report.lineage[-1]]}), directory)
    Path(made["pqat"], "training_curve.csv").write_text("epoch,train/loss\n1,0.5\n2,0.25\n")
    return made


@pytest.fixture
def logged_by(leaves):
    """Says which runs have logged the stages, in the artifacts: stage -> run id."""

    def say(runs):
        for directory in leaves.values():
            report = read_leaf_report(directory)
            lineage = [step.model_copy(update={"mlflow_run_id": runs[step.stage]}) for step in report.lineage]
            write_record(report.model_copy(update={"lineage": lineage}), directory)

    return say


@pytest.fixture
def complete(leaves, baseline_directory):
    return lambda: complete_stages(open_parent(), read_candidates(read_stage_record(baseline_directory), leaves))


@pytest.fixture
def shown(client):
    """Name -> what MLflow shows of a run, of all runs below the parent of this pipeline run."""

    def read():
        (parent,) = client.search_runs(["1"], "tags.`kfp.pipeline_run_id` = 'run-1'")
        runs = client.search_runs(["1"], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
        found = {}
        for run in runs:
            assert run.info.run_name not in found
            history = {
                name: [(point.step, point.value) for point in client.get_metric_history(run.info.run_id, name)]
                for name in run.data.metrics
            }
            files = {file.path for file in client.list_artifacts(run.info.run_id)}
            tags = {name: value for name, value in run.data.tags.items() if name.startswith("collabopt.")}
            found[run.info.run_name] = run.info.status, run.data.params, history, files, tags
        return found

    return read


def test_cached_stages_appear_with_what_their_artifacts_tell(complete, shown, logged_by):
    logged_by({stage: f"earlier-{stage}" for stage in STAGES})
    complete()
    runs = shown()
    assert set(runs) == STAGES
    assert {run[0] for run in runs.values()} == {"FINISHED"}
    assert {stage: run[4]["collabopt.cached_from"] for stage, run in runs.items()} == {
        stage: f"earlier-{stage}" for stage in STAGES
    }
    _, params, history, files, tags = runs["pqat"]
    assert params == {"pqat.seed": "0"}
    assert history == {"accuracy": [(0, 0.7)], "train/loss": [(1, 0.5), (2, 0.25)]}
    assert files == set()  # they are with the run that the stage has logged to
    assert tags["collabopt.techniques"] == "import_model>prune>sparsity_preserving_qat"
    assert (tags["collabopt.leaf"], tags["collabopt.pathway"]) == ("true", "collaborative")
    assert runs["pruned"][2] == {"accuracy": [(0, 0.9)], "sparsity": [(0, 0.5)]}


def test_stages_that_have_run_keep_their_runs(client, complete, shown, logged_by):
    ids = {}
    for stage in STAGES:
        with stage_run(stage) as run:
            run.log_metrics({"accuracy": {"ptq": 0.88, "pqat": 0.7}.get(stage, 0.9), "more": 1.0})
            run.log_epoch(1, {"train/loss": 0.5})
        ids[stage] = run.run_id
    logged_by(ids)
    complete()
    runs = shown()
    assert set(runs) == STAGES
    assert not any("collabopt.cached_from" in run[4] for run in runs.values())
    assert runs["pqat"][2] == {"accuracy": [(0, 0.7)], "more": [(0, 1.0)], "train/loss": [(1, 0.5), (2, 0.25)]}
    assert runs["pqat"][3] == {"model.tflite", "report.json", "training_curve.csv"}


def test_what_an_earlier_attempt_has_logged_gives_way(client, complete, shown, logged_by):
    """The first attempt got further with MLflow than the second, whose leaf is the one that counts."""
    with pytest.raises(ZeroDivisionError), stage_run("pqat") as first:
        first.log_epoch(1, {"train/loss": 9.0})
        first.log_epoch(2, {"train/loss": 0.25})
        first.log_metrics({"accuracy": 0.1})
        _ = 1 / 0
    logged_by({**{stage: f"earlier-{stage}" for stage in STAGES}, "pqat": first.run_id})
    complete()
    status, _, history, _, tags = shown()["pqat"]
    assert (status, "collabopt.cached_from" in tags) == ("FINISHED", False)
    assert history == {"accuracy": [(0, 0.1), (0, 0.7)], "train/loss": [(1, 9.0), (2, 0.25), (1, 0.5)]}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_figures_that_are_no_finite_numbers_are_logged_once(client, leaves, complete, kill_before_change, value):
    report = read_leaf_report(leaves["ptq"])
    write_record(report.model_copy(update={"metrics": {**report.metrics, "odd": value}}), leaves["ptq"])
    complete()
    assert kill_before_change(10**6, complete) == []


def test_a_run_that_was_left_in_the_middle_is_completed(client, complete, shown, logged_by):
    ids, killed = {}, []
    for stage in STAGES:
        opened = stage_run(stage)
        ids[stage] = opened.__enter__().run_id
        if stage == "pqat":
            client.log_metric(ids[stage], "train/loss", 0.5, step=1)
        client.log_param(ids[stage], f"{stage}.seed", 0)
        killed.append(opened)  # while this lives, nothing is said of its end
    logged_by(ids)
    assert {run[0] for run in shown().values()} == {"RUNNING"}
    complete()
    runs = shown()
    assert {run[0] for run in runs.values()} == {"FINISHED"}
    assert runs["pqat"][2] == {"accuracy": [(0, 0.7)], "train/loss": [(1, 0.5), (2, 0.25)]}
    assert runs["pqat"][3] == {"model.tflite", "report.json", "training_curve.csv"}


def test_completing_again_changes_nothing(complete, shown, kill_before_change):
    complete()
    before = shown()
    assert kill_before_change(10**6, complete) == []
    assert shown() == before


def test_completing_that_is_killed_before_any_change_ends_in_the_same_state(
    client, complete, shown, logged_by, kill_before_change, monkeypatch
):
    """The parent too is made by it. One stage had been left in the middle by its own process."""
    monkeypatch.setattr("collabopt.components.engine.tracking.parent.SETTLE_SECONDS", 0.0)

    killed = []

    def begin():
        for run in client.search_runs(["1"]) if client.get_experiment("1") else []:
            client.delete_run(run.info.run_id)
        opened = stage_run("pqat")
        logged_by({**{stage: f"earlier-{stage}" for stage in STAGES}, "pqat": opened.__enter__().run_id})
        killed.append(opened)  # while this lives, nothing is said of its end

    with stage_run("warm_up"):
        pass
    begin()
    changes = kill_before_change(10**6, complete)
    expected = shown()
    assert set(expected) == STAGES
    assert len(changes) > 15
    wrong = {}
    for number in range(len(changes)):
        begin()
        assert len(kill_before_change(number, complete)) == number
        complete()
        if shown() != expected:
            wrong[number, changes[number]] = shown()
    assert wrong == {}
