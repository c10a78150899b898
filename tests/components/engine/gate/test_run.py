import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.gate.run import run_gate
from collabopt.components.engine.tracking import stage_run

MODEL = "digits"


@pytest.fixture
def gate(client, baseline_directory, tmp_path):
    """Runs the gate on leaves; keyword arguments replace its own."""

    def run(leaves, **changed):
        arguments = {
            "baseline": baseline_directory,
            "leaves": leaves,
            "policy_text": "max_drop: 0.05",
            "output": str(tmp_path / "output"),
            "model_name": MODEL,
            "parameters": {"epochs": 3, "overrides": {"pqat": {"epochs": 5}}},
        }
        return run_gate(**{**arguments, **changed})

    return run


@pytest.fixture
def two_leaves(examples, make_leaf):
    return {"ptq": make_leaf(examples[0], 0.88), "pqat": make_leaf(examples[1], 0.70, stage="pqat")}


def parent_and_children(client):
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if "kfp.pipeline_run_id" in run.data.tags]
    return parent, {run.info.run_name: run for run in runs if run is not parent}


def test_the_gate_ships_the_winner_and_completes_the_pipeline_run(client, gate, two_leaves, tmp_path):
    with stage_run("ptq", tags={}):
        pass
    decision = gate(two_leaves)
    written = Decision.model_validate_json((tmp_path / "output" / "decision.json").read_text())
    assert written == decision
    assert decision.winner == "ptq"
    assert [path.name for path in (tmp_path / "output").iterdir()] == ["decision.json"]

    champion = client.get_model_version_by_alias(MODEL, "champion")
    assert champion.tags["sha256"] == decision.winner_sha256

    parent, children = parent_and_children(client)
    assert parent.info.status == "FINISHED"
    assert set(children) == {"ptq", "deployment_gate"}
    assert {child.data.tags["mlflow.parentRunId"] for child in children.values()} == {parent.info.run_id}
    assert parent.data.params == {
        "epochs": "3",
        "overrides": '{"pqat": {"epochs": 5}}',
    }
    assert parent.data.metrics["accuracy"] == 0.88
    assert parent.data.metrics["drop"] == pytest.approx(0.02)
    assert parent.data.metrics["baseline_accuracy"] == 0.9
    assert parent.data.metrics["tflite_bytes"] == Path(two_leaves["ptq"], "model.tflite").stat().st_size
    assert parent.data.tags["winner"] == "ptq"
    assert parent.data.tags["outcome"] == decision.outcome
    table = parent.data.tags["mlflow.note.content"].splitlines()
    assert any(row.startswith("| **ptq** | standard | 0.8800 |") and "qualified" in row for row in table)
    assert any(row.startswith("| pqat | collaborative | 0.7000 |") and "refused" in row for row in table)
    assert len({row.count("|") for row in table if row.startswith("|")}) == 1

    gate_run = children["deployment_gate"]
    assert gate_run.info.status == "FINISHED"
    assert champion.run_id == gate_run.info.run_id
    logged = client.download_artifacts(gate_run.info.run_id, "decision.json", str(tmp_path))
    assert Decision.model_validate_json(Path(logged).read_text()) == decision


def test_nothing_is_registered_when_no_leaf_qualifies(client, gate, two_leaves, tmp_path):
    decision = gate(two_leaves, policy_text="max_drop: 0")
    assert decision.winner is None
    assert client.search_registered_models() == []
    assert client.search_logged_models([client.get_experiment_by_name("collabopt").experiment_id]) == []
    assert json.loads((tmp_path / "output" / "decision.json").read_text())["winner"] is None
    parent, _ = parent_and_children(client)
    assert parent.info.status == "FINISHED"
    assert parent.data.tags["winner"] == "none"
    assert parent.data.tags["outcome"] == "none of 2 leaves qualifies; nothing is shipped"
    assert "accuracy" not in parent.data.metrics


def test_the_gate_by_hand_needs_no_pipeline(client, gate, two_leaves, monkeypatch, tmp_path):
    monkeypatch.delenv("COLLABOPT_PIPELINE_RUN_ID")
    assert gate(two_leaves).winner == "ptq"
    assert (tmp_path / "output" / "decision.json").exists()


def test_a_report_that_says_more_than_its_file_shows_is_refused(client, gate, two_leaves):
    path = Path(two_leaves["ptq"], "report.json")
    report = json.loads(path.read_text())
    report["deployed"]["gzip_bytes"] = 1
    path.write_text(json.dumps(report))
    with pytest.raises(CollaboptError, match="is not the file that its report describes"):
        gate(two_leaves)


def test_swapped_and_damaged_leaves_are_refused_before_anything_is_logged(client, gate, two_leaves, tmp_path):
    with pytest.raises(CollaboptError, match="leaf 'pqat' was made by stage 'ptq'"):
        gate({"pqat": two_leaves["ptq"]})
    Path(two_leaves["ptq"], "model.tflite").write_bytes(b"other bytes")
    with pytest.raises(CollaboptError, match="is not the file that its report describes"):
        gate(two_leaves)
    Path(two_leaves["ptq"], "model.tflite").unlink()
    with pytest.raises(CollaboptError, match=r"has no model\.tflite"):
        gate(two_leaves)
    for changed in ({"policy_text": "max_drop: -1"}, {"model_name": "a/b"}, {"baseline": str(tmp_path)}):
        with pytest.raises(CollaboptError):
            gate({"pqat": two_leaves["pqat"]}, **changed)
    assert client.get_experiment_by_name("collabopt") is None
    assert not (tmp_path / "output" / "decision.json").exists()


# --- killed at any point ---

CHANGES = (
    "create_experiment",
    "create_run",
    "update_run",
    "set_tag",
    "log_batch",
    "log_artifact",
    "create_logged_model",
    "log_model_artifacts",
    "finalize_logged_model",
    "create_registered_model",
    "create_model_version",
    "set_model_version_tag",
    "set_registered_model_alias",
    "set_terminated",
)


class Killed(BaseException):
    """Nothing in the process runs after this: every later call raises it too."""


def kill_before_change(monkeypatch, number):
    """Lets `number` calls through that change the store; returns the list of their names."""
    done: list[str] = []

    def guard(name):
        call = getattr(MlflowClient, name)

        def guarded(self, *args, **kwargs):
            if len(done) >= number:
                raise Killed(name)
            result = call(self, *args, **kwargs)
            done.append(name)
            return result

        monkeypatch.setattr(MlflowClient, name, guarded)

    for name in CHANGES:
        guard(name)
    return done


def state(client, output):
    parent, children = parent_and_children(client)
    model = client.get_registered_model(MODEL)
    models = {model.model_id for model in client.search_logged_models(["1"]) if model.status == "READY"}
    return {
        "aliases": {alias: str(version) for alias, version in model.aliases.items()},
        "versions": [
            {**version.tags, "model_id": version.tags["model_id"] in models}
            for version in client.search_model_versions(f"name='{MODEL}'")
        ],
        "models": len(models),
        "parent": (parent.info.status, parent.data.params, parent.data.metrics, parent.data.tags["winner"]),
        "children": {name: child.info.status for name, child in children.items()},
        "files": {path.name: path.read_text() for path in output.iterdir()},
    }


def test_a_gate_killed_before_any_change_ends_in_the_same_state(
    client, gate, two_leaves, examples, make_leaf, tmp_path, monkeypatch
):
    monkeypatch.setattr("collabopt.components.engine.tracking.parent.SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "run-0")
    gate({"pqat": make_leaf(examples[1], 0.9, stage="pqat")}, output=str(tmp_path / "earlier"))
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "run-1")
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "before.db")

    reached = {}

    def fresh(name):
        """A store as it was before, under a path of its own: MLflow keeps connections to the old one."""
        shutil.copy(tmp_path / "before.db", tmp_path / f"{name}.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{name}.db")
        opened = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/{name}.db")
        earlier = opened.search_runs(["1"], "tags.`kfp.pipeline_run_id` = 'run-0'")
        for run in earlier + opened.search_runs(["1"], "tags.`collabopt.pipeline_run_id` = 'run-0'"):
            opened.delete_run(run.info.run_id)
        return opened

    opened = fresh("undisturbed")
    with monkeypatch.context() as counting:
        changes = kill_before_change(counting, 10**6)
        gate(two_leaves, output=str(tmp_path / "undisturbed"))
    expected = state(opened, tmp_path / "undisturbed")
    assert expected["aliases"] == {"champion": "2", "previous": "1"}
    assert len(changes) > 10

    for number in range(len(changes)):
        opened, output = fresh(f"killed{number}"), tmp_path / f"killed{number}"
        with monkeypatch.context() as killing:
            kill_before_change(killing, number)
            with pytest.raises(Killed):
                gate(two_leaves, output=str(output))
        assert not (output / "decision.json").exists()
        gate(two_leaves, output=str(output))
        reached[number] = state(opened, output)
    assert [number for number, ending in reached.items() if ending != expected] == []


def test_running_the_gate_again_changes_nothing(client, gate, two_leaves, tmp_path):
    gate(two_leaves)
    before = state(client, tmp_path / "output")
    gate(two_leaves)
    assert state(client, tmp_path / "output") == before
