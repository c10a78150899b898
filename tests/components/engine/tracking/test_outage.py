"""MLflow goes away while a stage works: nothing that it has computed is lost, and the record is completed later."""

import csv
import json
import time
from pathlib import Path

import numpy as np
import pytest
import requests
from mlflow import MlflowClient

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import read_candidates
from collabopt.components.engine.gate.record import complete_stages
from collabopt.components.engine.models.store import save_model
from collabopt.components.engine.records import (
    MetricOfRecord,
    StageRecord,
    Step,
    read_leaf_report,
    read_stage_record,
    write_record,
)
from collabopt.components.engine.stages import load_dataset_stage, run_stage
from collabopt.components.engine.tracking import open_parent, stage_run
from collabopt.components.engine.tracking.store import experiment_id
from collabopt.components.engine.training.task import DEFAULT_TASK

EPOCHS = 3
FILES = {"model.tflite", "model.tflite.gz", "report.json", "model_data.cc", "model_data.h", "training_curve.csv"}


def whole_stage():
    """All that a stage tells MLflow; gives its run."""
    with stage_run("qat", tags={"collabopt.technique": "quantize_aware_train"}) as run:
        run.log_params({"epochs": EPOCHS, "seed": 0})
        for epoch in range(1, EPOCHS + 1):
            run.log_epoch(epoch, {"train/loss": 1 / epoch, "validation/loss": 2 / epoch})
        run.log_metrics({"accuracy": 0.9, "tflite_bytes": 100.0})
        run.log_artifact("report.json")
        run.log_artifact("figures")
    return run


def shown(client, run_id):
    """All that MLflow shows of a run, but for ids and times."""
    run = client.get_run(run_id)
    history = {name: [(p.step, p.value) for p in client.get_metric_history(run_id, name)] for name in run.data.metrics}
    files = {file.path for file in client.list_artifacts(run_id)}
    tags = run.data.tags["collabopt.stage"], run.data.tags.get("collabopt.technique")
    return run.info.status, run.data.params, history, files, tags


@pytest.fixture
def files(tmp_path):
    (tmp_path / "report.json").write_text("{}")
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "curve.txt").write_text("1 2 3")


@pytest.fixture
def count_requests(monkeypatch):
    """Counts the requests of a function."""

    def count(function):
        send, urls = requests.Session.send, []
        with monkeypatch.context() as listening:
            listening.setattr(
                requests.Session, "send", lambda self, request, **more: (urls.append(1), send(self, request, **more))[1]
            )
            result = function()
        return len(urls), result

    return count


def test_a_stage_survives_a_server_that_fails_from_any_request_on(
    served, pod, mlflow_server, files, break_requests, count_requests, capfd, monkeypatch
):
    """Refusing, silent or overloaded, in turn. Before the run has begun, nothing is lost, and a failure is an error."""
    monkeypatch.setattr("collabopt.components.engine.tracking.parent.SETTLE_SECONDS", 0.0)
    pod(mlflow_server)
    opened = stage_run("qat", tags={"collabopt.technique": "quantize_aware_train"})
    starting, _ = count_requests(opened.__enter__)
    pod(mlflow_server)
    total, _ = count_requests(whole_stage)
    assert total > starting + 2 + EPOCHS
    for number in range(1, total + 1):
        pod(mlflow_server)
        capfd.readouterr()
        fault = ("refused", "slow", "unavailable")[number % 3]
        with break_requests(number, fault, lambda url: url.startswith(mlflow_server)):
            if number <= starting:
                with pytest.raises(CollaboptError, match="MLflow"):
                    whole_stage()
                continue
            run = whole_stage()
        assert run.lost.startswith("MLflow: "), number
        assert capfd.readouterr().err.count("warning: MLflow: ") == 1, number
        assert served.get_run(run.run_id).info.status == "RUNNING", number


@pytest.mark.parametrize("back", [True, False], ids=["server comes back", "server stays away"])
def test_catching_up_tells_all_that_was_missed(
    served, pod, mlflow_server, files, break_requests, count_requests, monkeypatch, back
):
    """From whichever request on the server failed; one that is well again is told nothing twice."""
    monkeypatch.setattr("collabopt.components.engine.tracking.parent.SETTLE_SECONDS", 0.0)

    def work(run):
        run.log_params({"epochs": EPOCHS, "seed": 0})
        for epoch in range(1, EPOCHS + 1):
            run.log_epoch(epoch, {"train/loss": 1 / epoch, "validation/loss": 2 / epoch})
        run.log_metrics({"accuracy": 0.9, "tflite_bytes": 100.0})
        run.log_artifact("report.json")
        run.log_artifact("figures")

    with stage_run("qat") as run:
        total, _ = count_requests(lambda: work(run))
    expected = shown(served, run.run_id)
    assert expected[0] == "FINISHED" and len(expected[2]["train/loss"]) == EPOCHS

    for number in range(1, total + 1):
        pod(mlflow_server)
        with stage_run("qat") as run:
            with break_requests(number, "refused", lambda url: url.startswith(mlflow_server)):
                work(run)
                assert run.lost
                if not back:
                    run.catch_up()
                    assert run.lost
            if back:
                run.catch_up()
                assert not run.lost
        if back:
            assert shown(served, run.run_id) == expected, number
        else:
            assert served.get_run(run.run_id).info.status == "RUNNING", number


def test_a_failing_stage_says_that_mlflow_was_not_told(served, mlflow_server, break_requests):
    with pytest.raises(ZeroDivisionError) as caught, stage_run("qat"):
        broken = break_requests(1, "refused", lambda url: url.startswith(mlflow_server))
        broken.__enter__()
        _ = 1 / 0
    broken.__exit__(None, None, None)
    assert "connection refused" in caught.value.__notes__[0]


def test_data_are_loaded_although_mlflow_fails(served, mlflow_server, break_requests, count_requests, tmp_path):
    random = np.random.default_rng(0)
    np.savez(tmp_path / "data.npz", x=random.random((60, 8, 8, 1), np.float32), y=np.arange(60) % 3)

    def load():
        return load_dataset_stage(
            source=str(tmp_path / "data.npz"),
            output=str(tmp_path / "dataset"),
            task=DEFAULT_TASK,
            settings={},
            overrides={},
        )

    total, _ = count_requests(load)
    with break_requests(total - 1, "refused", lambda url: url.startswith(mlflow_server)):
        assert load().metrics["test_samples"] == 12


# --- a server that is killed ---


@pytest.fixture(scope="module")
def mortal(serve_empty_store):
    return serve_empty_store()


@pytest.fixture
def baseline(data, tmp_path):
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    model = tf_keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="dense"),
        ]
    )
    directory = tmp_path / "baseline"
    save_model(model, directory)
    record = StageRecord(
        lineage=[Step(stage="baseline", technique="import_model", settings={"seed": 0}, metrics={"accuracy": 0.9})],
        task=DEFAULT_TASK,
        dataset_digest=data.spec.digest,
        metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
    )
    write_record(record, directory)
    return directory


@pytest.fixture
def train(data, tmp_path, monkeypatch):
    """Runs a training stage; after its first epoch something may happen."""

    def run(technique, stage, parent, after_first_epoch=lambda: None):
        from collabopt.components.engine.tracking import StageRun

        log_epoch = StageRun.log_epoch

        def logging(self, epoch, metrics):
            log_epoch(self, epoch, metrics)
            if epoch == 1:
                after_first_epoch()

        monkeypatch.setattr(StageRun, "log_epoch", logging)
        run_stage(
            technique,
            stage=stage,
            parent=str(parent),
            dataset=str(data.directory),
            output=str(tmp_path / stage),
            task=DEFAULT_TASK,
            settings={"epochs": EPOCHS, "batch_size": 64},
            overrides={},
        )
        return tmp_path / stage

    return run


def test_a_server_killed_in_the_middle_of_training_costs_nothing_but_time(
    mortal, pod, baseline, train, capfd, monkeypatch
):
    """An interior stage and a leaf below it lose MLflow after their first epoch; the gate completes both records."""
    pod(mortal.address)
    client = MlflowClient(tracking_uri=mortal.address)
    pruned = train("prune", "pruned", baseline, mortal.kill)
    assert "warning: MLflow: " in capfd.readouterr().err
    record = read_stage_record(pruned)
    assert record.metrics["sparsity"] > 0.4
    assert "MLflow" in record.mlflow["incomplete"]

    with pytest.raises(CollaboptError, match="MLflow"):
        train("sparsity_preserving_qat", "pqat", pruned)
    mortal.start()
    leaf = train("sparsity_preserving_qat", "pqat", pruned, mortal.kill)
    assert {path.name for path in leaf.iterdir()} == FILES
    report = read_leaf_report(leaf)
    assert report.contract.holds and report.mlflow["incomplete"]
    with (leaf / "training_curve.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3"]

    mortal.start()
    for run_id in (record.mlflow["run_id"], report.mlflow["run_id"]):
        assert client.get_run(run_id).info.status == "RUNNING"
    complete_stages(open_parent(), read_candidates(read_stage_record(baseline), {"pqat": leaf}))
    children = {run.info.run_name: run for run in client.search_runs([experiment_id(client)])}
    assert set(children) == {"exhaustive-1", "baseline", "pruned", "pqat"}
    assert {run.info.status for name, run in children.items() if name != "exhaustive-1"} == {"FINISHED"}
    assert children["pruned"].info.run_id == record.mlflow["run_id"]
    assert children["pruned"].data.metrics.items() >= record.metrics.items()
    assert children["pqat"].info.run_id == report.mlflow["run_id"]
    assert children["pqat"].data.metrics.items() >= report.metrics.items()
    assert children["pqat"].data.params["pqat.epochs"] == "3"
    assert "collabopt.cached_from" not in children["pqat"].data.tags
    curve = client.get_metric_history(report.mlflow["run_id"], "train/loss")
    assert [point.step for point in curve] == [1, 2, 3]
    found = {file.path for file in client.list_artifacts(report.mlflow["run_id"])}
    assert found == {"model.tflite", "report.json", "training_curve.csv"}
    logged = client.download_artifacts(report.mlflow["run_id"], "report.json")
    assert json.loads(Path(logged).read_text())["mlflow"]["run_id"] == report.mlflow["run_id"]


def test_a_server_that_is_back_by_the_end_of_the_stage_is_told_all(mortal, pod, baseline, train):
    def restart():
        mortal.kill()
        restarting.append(True)

    restarting = []
    pod(mortal.address)
    client = MlflowClient(tracking_uri=mortal.address)

    from collabopt.components.engine.tracking import StageRun

    log_metrics = StageRun.log_metrics

    def after_training(self, metrics):
        if restarting:
            mortal.start()
            restarting.clear()
        log_metrics(self, metrics)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(StageRun, "log_metrics", after_training)
        output = train("prune", "pruned", baseline, restart)
    record = read_stage_record(output)
    assert "incomplete" not in record.mlflow
    status, params, history, files, _ = shown(client, record.mlflow["run_id"])
    assert status == "FINISHED"
    assert params["pruned.epochs"] == "3"
    assert [step for step, _ in history["train/loss"]] == [1, 2, 3]
    assert files == {"stage.json", "training_curve.csv"}


def test_a_stage_is_held_up_for_seconds_by_a_server_that_is_gone(served, patient, monkeypatch):
    """With MLflow's own patience it would be minutes at every epoch; here it is what three retries sleep, once."""
    slept = []
    with stage_run("qat") as run:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        run.client = MlflowClient(tracking_uri="http://127.0.0.1:9")
        monkeypatch.setattr(time, "sleep", slept.append)
        for epoch in range(1, 101):
            run.log_epoch(epoch, {"loss": 1 / epoch})
        assert run.lost
    assert 10 < sum(slept) < 20
