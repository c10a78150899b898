import json
import os
import shutil
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.tracking import check_reachable, fail_parent, open_parent, stage_run

PIPELINE = "8f14e45f"
VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_EXPERIMENT_NAME",
    "MLFLOW_EXPERIMENT_ID",
    "MLFLOW_RUN_ID",
    "COLLABOPT_PIPELINE_RUN_ID",
    "COLLABOPT_PIPELINE_NAME",
)


@pytest.fixture
def clean(monkeypatch, tmp_path):
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def client(clean, empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def in_pipeline(monkeypatch):
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", PIPELINE)
    monkeypatch.setenv("COLLABOPT_PIPELINE_NAME", "exhaustive-8f14e45f")


def runs_of(client, experiment="collabopt"):
    return client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def parents_and_children(client):
    runs = runs_of(client)
    parents = [run for run in runs if run.data.tags.get("kfp.pipeline_run_id") == PIPELINE]
    return parents, [run for run in runs if run not in parents]


# --- one stage ---


def test_a_stage_by_hand_has_a_run_without_parent(client):
    with stage_run("pruned", tags={"pathway": "standard"}) as run:
        run.log_params({"epochs": 3, "schedule": "constant"})
        run.log_epoch(1, {"loss": 0.5})
        run.log_epoch(2, {"loss": 0.25})
        run.log_metrics({"accuracy": 0.9})
        assert client.get_run(run.run_id).info.status == "RUNNING"
    (logged,) = runs_of(client)
    assert (logged.info.run_id, logged.info.experiment_id) == (run.run_id, run.experiment_id)
    assert logged.info.run_name == "pruned"
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {"pruned.epochs": "3", "pruned.schedule": "constant"}
    assert [(point.step, point.value) for point in client.get_metric_history(run.run_id, "loss")] == [
        (1, 0.5),
        (2, 0.25),
    ]
    assert logged.data.metrics["accuracy"] == 0.9
    assert logged.data.tags["pathway"] == "standard"
    assert "mlflow.parentRunId" not in logged.data.tags


def test_the_experiment_is_taken_from_the_environment(client, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "keywords")
    with stage_run("ptq", tags={}) as run:
        pass
    assert client.get_experiment(run.experiment_id).name == "keywords"


def test_artifacts_lie_beside_the_database_wherever_the_stage_was_started(client, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    (elsewhere / "plots").mkdir(parents=True)
    (elsewhere / "plots" / "curve.txt").write_text("1 2 3")
    (elsewhere / "notes.txt").write_text("hello")
    monkeypatch.chdir(elsewhere)
    with stage_run("ptq", tags={}) as run:
        run.log_artifact("notes.txt")
        run.log_artifact(elsewhere / "plots")
    assert {file.path for file in client.list_artifacts(run.run_id)} == {"notes.txt", "plots"}
    assert [file.path for file in client.list_artifacts(run.run_id, "plots")] == ["plots/curve.txt"]
    assert list((tmp_path / "mlartifacts").rglob("notes.txt"))
    assert not (elsewhere / "mlruns").exists()


def test_a_failing_stage_fails_its_run_and_its_error_is_not_changed(client):
    with pytest.raises(ZeroDivisionError), stage_run("ptq", tags={}):
        _ = 1 / 0
    assert [run.info.status for run in runs_of(client)] == ["FAILED"]


def test_an_error_survives_when_mlflow_cannot_be_told(client, monkeypatch):
    from mlflow.exceptions import MlflowException

    def refuse(*_args, **_kwargs):
        raise MlflowException("the server went away")

    with pytest.raises(ZeroDivisionError) as caught, stage_run("ptq", tags={}):
        monkeypatch.setattr(MlflowClient, "set_terminated", refuse)
        _ = 1 / 0
    assert "the server went away" in caught.value.__notes__[0]


def test_many_and_long_params_are_logged(client):
    params: dict[str, object] = {f"p{number}": number for number in range(250)}
    with stage_run("ptq", tags={}) as run:
        run.log_params({**params, "long": "x" * 10_000, "nested": {"b": [1, 2], "a": None}})
    logged = client.get_run(run.run_id).data.params
    assert len(logged) == 252
    assert logged["ptq.p249"] == "249"
    assert len(logged["ptq.long"]) == 6000
    assert logged["ptq.long"].endswith("(cut)")
    assert json.loads(logged["ptq.nested"]) == {"a": None, "b": [1, 2]}


def test_metric_names_of_user_tasks_are_made_legal(client):
    with stage_run("ptq", tags={}) as run:
        run.log_metrics({"recall@0.5": 0.75, "val/top-5 accuracy": 0.5})
    assert client.get_run(run.run_id).data.metrics == {"recall_0.5": 0.75, "val/top-5 accuracy": 0.5}


# --- parent and children ---


def test_stages_of_one_pipeline_share_a_parent(client, in_pipeline):
    for stage in ("pruned", "pqat"):
        with stage_run(stage, tags={}):
            pass
    (parent,), children = parents_and_children(client)
    assert parent.info.run_name == "exhaustive-8f14e45f"
    assert parent.info.status == "RUNNING"
    assert {child.info.run_name for child in children} == {"pruned", "pqat"}
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}


def test_a_parent_that_kfp_made_is_used_and_left_to_kfp(client, in_pipeline, monkeypatch):
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "KFP-Default")
    experiment = client.create_experiment("KFP-Default")
    made = client.create_run(experiment, run_name="nightly", tags={"kfp.pipeline_run_id": PIPELINE})
    with stage_run("ptq", tags={}) as run:
        pass
    parent = open_parent()
    parent.finish()
    assert parent.run_id == made.info.run_id
    assert client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == made.info.run_id
    assert client.get_run(made.info.run_id).info.status == "RUNNING"


def test_a_retried_stage_resumes_its_run(client, in_pipeline):
    with pytest.raises(ZeroDivisionError), stage_run("pqat", tags={}) as first:
        first.log_params({"epochs": 3, "seed": 0})
        _ = 1 / 0
    fail_parent(PIPELINE)
    with stage_run("pqat", tags={}) as second:
        second.log_params({"epochs": 3, "seed": 0})
        (parent,), _ = parents_and_children(client)
        assert parent.info.status == "RUNNING"
        assert client.get_run(second.run_id).info.status == "RUNNING"
    _, (child,) = parents_and_children(client)
    assert second.run_id == first.run_id == child.info.run_id
    assert child.info.status == "FINISHED"
    assert child.data.params == {"pqat.epochs": "3", "pqat.seed": "0"}


def test_a_retry_with_other_values_keeps_both(client, in_pipeline):
    for epochs in (3, 5, 5, 7, 3):
        with stage_run("pqat", tags={}) as run:
            run.log_params({"epochs": epochs, "seed": 0})
    assert client.get_run(run.run_id).data.params == {
        "pqat.epochs": "3",
        "pqat.epochs.attempt_2": "5",
        "pqat.epochs.attempt_3": "7",
        "pqat.seed": "0",
    }


def test_the_run_that_kfp_injects_is_used_under_its_own_name(client, in_pipeline, monkeypatch):
    experiment = client.create_experiment("KFP-Default")
    root = client.create_run(experiment, run_name="nightly", tags={"kfp.pipeline_run_id": PIPELINE})
    loop = client.create_run(experiment, run_name="loop", tags={"mlflow.parentRunId": root.info.run_id})
    task = client.create_run(experiment, run_name="task-7", tags={"mlflow.parentRunId": loop.info.run_id})
    monkeypatch.setenv("MLFLOW_RUN_ID", task.info.run_id)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", experiment)
    with stage_run("ptq", tags={"pathway": "standard"}) as run:
        run.log_params({"epochs": 1})
    assert (run.run_id, run.experiment_id) == (task.info.run_id, experiment)
    logged = client.get_run(run.run_id)
    assert logged.info.run_name == "task-7"
    assert logged.info.status == "FINISHED"
    assert logged.data.params == {"ptq.epochs": "1"}
    assert logged.data.tags["pathway"] == "standard"
    assert client.get_experiment_by_name("collabopt") is None
    parent = open_parent()
    assert parent.run_id == root.info.run_id
    parent.finish()
    assert client.get_run(root.info.run_id).info.status == "RUNNING"


def test_open_parent_outside_of_a_pipeline_is_none(client):
    assert open_parent() is None


def test_the_parent_shows_what_is_written_to_it(client, in_pipeline):
    parent = open_parent()
    parent.log_params({"epochs": 3})
    parent.log_metrics({"accuracy": 0.5})
    parent.set_tags({"winner": "ptq"})
    parent.describe("| leaf |")
    parent.finish()
    run = client.get_run(parent.run_id)
    assert (run.data.params, run.data.metrics) == ({"epochs": "3"}, {"accuracy": 0.5})
    assert run.data.tags["winner"] == "ptq"
    assert run.data.tags["mlflow.note.content"] == "| leaf |"
    assert run.info.status == "FINISHED"


def test_failing_a_pipeline_ends_the_parent_and_stages_that_were_killed(client, in_pipeline):
    with stage_run("ptq", tags={}):
        pass
    killed = stage_run("qat", tags={})
    killed.__enter__()
    fail_parent(PIPELINE)
    (parent,), children = parents_and_children(client)
    assert parent.info.status == "FAILED"
    assert {child.info.run_name: child.info.status for child in children} == {"ptq": "FINISHED", "qat": "KILLED"}


def test_failing_a_pipeline_that_never_logged_makes_no_run(client):
    fail_parent("unknown")
    assert runs_of(client) == []


# --- agreement ---


def test_processes_that_start_together_make_one_parent_and_one_store(clean, tmp_path):
    """Four processes on two cores, each with a TMPDIR of its own, no store yet, all logging at the same time."""
    program = """
import sys, time
from collabopt.components.engine.tracking import stage_run
from mlflow import MlflowClient
while time.time() < float(sys.argv[2]):
    time.sleep(0.001)
with stage_run(sys.argv[1], tags={}) as run:
    for epoch in range(1, 21):
        run.log_epoch(epoch, {"loss": 1 / epoch})
    run.log_params({"epochs": 20})
"""
    environment = {**os.environ, "COLLABOPT_PIPELINE_RUN_ID": PIPELINE}
    start = str(time.time() + 5)
    stages = ["pruned", "clustered", "ptq", "qat"]
    directories = [tmp_path / f"tmp-{stage}" for stage in stages]
    for directory in directories:
        directory.mkdir()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, stage, start],
            env={**environment, "TMPDIR": str(directory)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for stage, directory in zip(stages, directories, strict=True)
    ]
    for process in processes:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")
    (parent,), children = parents_and_children(client)
    assert sorted(child.info.run_name for child in children) == sorted(stages)
    assert {child.data.tags["mlflow.parentRunId"] for child in children} == {parent.info.run_id}
    assert all(len(client.get_metric_history(child.info.run_id, "loss")) == 20 for child in children)


def test_all_agree_when_everyone_has_created_a_parent(client, in_pipeline, monkeypatch):
    together = threading.Barrier(5)
    create_run = MlflowClient.create_run

    def create_at_the_same_time(self, *args, **kwargs):
        together.wait(timeout=30)
        return create_run(self, *args, **kwargs)

    with stage_run("warm_up", tags={}):
        pass
    client.delete_run(parents_and_children(client)[0][0].info.run_id)
    monkeypatch.setattr(MlflowClient, "create_run", create_at_the_same_time)
    failures = []

    def run_stage(name):
        try:
            with stage_run(name, tags={}):
                pass
        except Exception as error:  # noqa: BLE001 - a thread cannot raise into the test
            failures.append(error)

    threads = [threading.Thread(target=run_stage, args=(f"stage{number}",)) for number in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    (parent,), children = parents_and_children(client)
    made = [child for child in children if child.info.run_name != "warm_up"]
    assert [child.data.tags["mlflow.parentRunId"] for child in made] == [parent.info.run_id] * 5


def test_a_settled_parent_is_kept_although_an_older_one_turns_up(client, in_pipeline):
    with stage_run("ptq", tags={}):
        pass
    (parent,), _ = parents_and_children(client)
    tags = {"kfp.pipeline_run_id": PIPELINE, "collabopt.parent": "proposed"}
    client.create_run(parent.info.experiment_id, start_time=1, tags=tags)
    with stage_run("qat", tags={}) as run:
        pass
    assert client.get_run(run.run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


def test_opening_the_parent_heals_a_split_pipeline(client, in_pipeline):
    with stage_run("ptq", tags={}) as kept:
        pass
    (parent,), _ = parents_and_children(client)
    tags = {"kfp.pipeline_run_id": PIPELINE, "collabopt.parent": "settled"}
    second = client.create_run(parent.info.experiment_id, tags=tags, start_time=parent.info.start_time + 5)
    tags = {"mlflow.parentRunId": second.info.run_id, "collabopt.pipeline_run_id": PIPELINE, "collabopt.stage": "qat"}
    moved = client.create_run(parent.info.experiment_id, run_name="qat", tags=tags)
    assert open_parent().run_id == parent.info.run_id
    (left,), _ = parents_and_children(client)
    assert left.info.run_id == parent.info.run_id
    for run_id in (kept.run_id, moved.info.run_id):
        assert client.get_run(run_id).data.tags["mlflow.parentRunId"] == parent.info.run_id


# --- what the user can mend ---


def test_a_deleted_experiment_is_named(client, monkeypatch):
    client.delete_experiment(client.create_experiment("collabopt"))
    with pytest.raises(CollaboptError, match="'collabopt' has been deleted"), stage_run("ptq", tags={}):
        pass


def test_a_dead_server_is_reported_without_its_password(clean, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(CollaboptError) as caught, stage_run("ptq", tags={}):
        pass
    assert caught.value.where == "http://127.0.0.1:9"


def test_stages_refuse_a_file_store(clean, monkeypatch, tmp_path):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", str(tmp_path))
    with pytest.raises(CollaboptError, match="a directory"), stage_run("ptq", tags={}):
        pass


# --- check_reachable ---


@pytest.fixture
def server():
    """Answers /health with the status that the test sets; remembers the request."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            serving.requested = (self.path, self.headers.get("Authorization"))
            self.send_response(serving.status if self.path == "/mlflow/health" else 404)
            self.end_headers()
            self.wfile.write(b"OK")

        def log_message(self, *_args):
            pass

    serving = HTTPServer(("127.0.0.1", 0), Handler)
    serving.status = 200
    thread = threading.Thread(target=serving.serve_forever)
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def address(server, user=""):
    return f"http://{user}127.0.0.1:{server.server_address[1]}/mlflow"


def test_a_healthy_server_is_reachable(clean, server, monkeypatch):
    check_reachable(address(server) + "/")
    assert server.requested == ("/mlflow/health", None)
    monkeypatch.setenv("MLFLOW_TRACKING_TOKEN", "abc")
    check_reachable(address(server))
    assert server.requested[1] == "Bearer abc"
    check_reachable(address(server, "me:secret@"))
    assert server.requested[1] == "Basic bWU6c2VjcmV0"


@pytest.mark.parametrize(
    ("status", "advice"), [(403, "--allowed-hosts"), (401, "MLFLOW_TRACKING_TOKEN"), (503, "MLFLOW_TRACKING_URI")]
)
def test_a_server_that_refuses_is_reported_with_advice(clean, server, status, advice):
    server.status = status
    with pytest.raises(CollaboptError, match=str(status)) as caught:
        check_reachable(address(server, "me:secret@"))
    assert advice in caught.value.todo
    assert "secret" not in str(caught.value)


def test_a_server_that_does_not_answer_is_reported_within_seconds(clean):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(CollaboptError, match="cannot be reached"):
            check_reachable(f"http://127.0.0.1:{silent.getsockname()[1]}")
        assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        "https://127.0.0.1:9",
        "http://no-such-host.invalid:5000",
        "http://[bad",
        "http://a b:5000",
        "http://",
    ],
)
def test_an_unreachable_server_is_reported(clean, uri):
    with pytest.raises(CollaboptError):
        check_reachable(uri)


def test_without_address_the_one_of_the_environment_is_checked(clean, monkeypatch, tmp_path):
    check_reachable(None)
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    check_reachable(None)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "sqlite:////no/such/directory/mlflow.db")
    with pytest.raises(CollaboptError, match="does not exist"):
        check_reachable(None)
    assert list(tmp_path.iterdir()) == []


def test_sqlite_files_that_cannot_be_written_are_refused(clean, tmp_path):
    (tmp_path / "text.db").write_text("this is not a database")
    (tmp_path / "directory.db").mkdir()
    for uri, problem in [
        (f"sqlite:///{tmp_path}/text.db", "not an SQLite file"),
        (f"sqlite:///{tmp_path}/directory.db", "cannot be opened"),
        ("sqlite:////proc/mlflow.db", "cannot be written"),
        ("sqlite://", "in memory"),
        ("sqlite:///:memory:", "in memory"),
    ]:
        with pytest.raises(CollaboptError, match=problem):
            check_reachable(uri)


@pytest.mark.parametrize("uri", ["mlruns", "/tmp/mlruns", "file:///tmp/mlruns", "ftp://host/mlflow"])
def test_stores_of_other_kinds_are_refused_with_advice(clean, uri):
    with pytest.raises(CollaboptError) as caught:
        check_reachable(uri)
    assert "sqlite:////absolute/path/mlflow.db" in caught.value.todo


@pytest.mark.parametrize("uri", ["postgresql+psycopg2://me:pw@host/db", "mysql://host/db", "databricks"])
def test_other_databases_are_left_to_mlflow(clean, uri):
    check_reachable(uri)


def test_checking_does_not_import_mlflow(tmp_path):
    program = (
        "import sys; from collabopt.components.engine.tracking import check_reachable; "
        f"check_reachable('sqlite:///{tmp_path}/mlflow.db'); "
        "print([name for name in ('mlflow', 'numpy', 'tensorflow') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=Path.cwd())
    assert done.stdout.strip() == "[]"
