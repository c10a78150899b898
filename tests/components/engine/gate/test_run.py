import json
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from collabopt.components.engine.datasets.splits import SPLIT_NAMES, Samples, Splits
from collabopt.components.engine.datasets.store import write_dataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import read_candidates
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.gate.record import complete_stages
from collabopt.components.engine.gate.run import Gate, run_gate
from collabopt.components.engine.gate.sample import TestSamples
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.records import GATE_FILES, PRESCREEN_FILE, read_stage_record
from collabopt.components.engine.stages import gate_stage
from collabopt.components.engine.tracking import open_parent, stage_run

MODEL = "digits"


@pytest.fixture
def gate(client, baseline_directory, samples, tmp_path):
    """Runs the gate on leaves."""

    def run(
        leaves,
        *,
        baseline=baseline_directory,
        policy="goals: [{figure: metric, max_drop: 0.05}]",
        output=tmp_path / "output",
        name=MODEL,
        releases=tmp_path / "releases",
        samples=samples,
    ):
        candidates = read_candidates(read_stage_record(baseline), leaves)
        parameters = {"epochs": 3, "overrides": {"pqat": {"epochs": 5}}}
        return run_gate(
            Gate(candidates, parse_policy(policy), lambda limit: samples, name, str(releases)), output, parameters
        )

    return run


@pytest.fixture
def two_leaves(examples, make_leaf):
    return {"ptq": make_leaf(examples[0], 0.88), "pqat": make_leaf(examples[1], 0.70, stage="pqat")}


def parent_and_children(client):
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    runs = client.search_runs([experiment])
    (parent,) = [run for run in runs if "kfp.pipeline_run_id" in run.data.tags]
    return parent, {run.info.run_name: run for run in runs if run is not parent}


def released(releases):
    return json.loads((releases / MODEL / "champion.json").read_text())


def test_the_gate_ships_the_winner_and_completes_the_pipeline_run(client, gate, two_leaves, tmp_path):
    with stage_run("ptq", tags={}):
        pass
    decision = gate(two_leaves)
    written = Decision.model_validate_json((tmp_path / "output" / "decision.json").read_text())
    assert written == decision
    assert decision.winner == "ptq"
    assert {path.name for path in (tmp_path / "output").iterdir()} == set(GATE_FILES) - {PRESCREEN_FILE}
    assert released(tmp_path / "releases")["champion"] == decision.winner_sha256

    champion = client.get_model_version_by_alias(MODEL, "champion")
    assert champion.tags["sha256"] == decision.winner_sha256

    parent, children = parent_and_children(client)
    assert parent.info.status == "FINISHED"
    assert set(children) == {"baseline", "ptq", "pruned", "pqat", "deployment_gate"}
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
    decision = gate(two_leaves, policy="goals: [{figure: metric, max_drop: 0}]")
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
    for changed in (
        {"policy": "goals: [{figure: metric, max_drop: -1}]"},
        {"name": "a/b"},
        {"baseline": str(tmp_path)},
    ):
        with pytest.raises(CollaboptError):
            gate({"pqat": two_leaves["pqat"]}, **changed)
    assert client.get_experiment_by_name("collabopt") is None
    assert not (tmp_path / "output" / "decision.json").exists()


def state(client, output, releases):
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
        "files": {path.name: path.read_bytes() for path in output.iterdir()},
        "pointer": released(releases),
        "releases": {str(path.relative_to(releases)) for path in releases.rglob("*") if path.is_file()},
    }


def test_a_gate_killed_before_any_change_ends_in_the_same_state(
    client, gate, two_leaves, examples, make_leaf, baseline_directory, kill_before_change, tmp_path, monkeypatch
):
    """The stages' runs are complete; what a gate that is killed leaves of them is tested with their completion."""
    monkeypatch.setattr("collabopt.components.engine.tracking.parent.SETTLE_SECONDS", 0.0)
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "run-0")
    gate({"pqat": make_leaf(examples[1], 0.9, stage="pqat")}, output=tmp_path / "earlier", releases=tmp_path / "before")
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "run-1")
    complete_stages(open_parent(), read_candidates(read_stage_record(baseline_directory), two_leaves))
    shutil.copy(tmp_path / "mlflow.db", tmp_path / "before.db")

    reached = {}

    def fresh(name):
        """Stores as they were before; MLflow's under a path of its own, because it keeps connections to the old one."""
        shutil.rmtree(tmp_path / "releases", ignore_errors=True)
        shutil.copytree(tmp_path / "before", tmp_path / "releases")
        shutil.copy(tmp_path / "before.db", tmp_path / f"{name}.db")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/{name}.db")
        opened = MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/{name}.db")
        earlier = opened.search_runs(["1"], "tags.`kfp.pipeline_run_id` = 'run-0'")
        for run in earlier + opened.search_runs(["1"], "tags.`collabopt.pipeline_run_id` = 'run-0'"):
            opened.delete_run(run.info.run_id)
        return opened

    opened = fresh("undisturbed")
    changes = kill_before_change(10**6, lambda: gate(two_leaves, output=tmp_path / "undisturbed"))
    expected = state(opened, tmp_path / "undisturbed", tmp_path / "releases")
    assert expected["aliases"] == {"champion": "2", "previous": "1"}
    assert len(changes) > 10

    for number in range(len(changes)):
        opened, output = fresh(f"killed{number}"), tmp_path / f"killed{number}"
        assert len(kill_before_change(number, lambda output=output: gate(two_leaves, output=output))) == number
        assert not (output / "decision.json").exists()
        gate(two_leaves, output=output)
        reached[number] = state(opened, output, tmp_path / "releases")
    assert [number for number, ending in reached.items() if ending != expected] == []


def test_running_the_gate_again_changes_nothing(client, gate, two_leaves, tmp_path):
    gate(two_leaves)
    # As a gate leaves it that is killed by the system, with no time to clear up.
    (tmp_path / "output" / ".unfinished-x").mkdir()
    (tmp_path / "output" / ".unfinished-x" / "report.html").touch()
    gate(two_leaves)
    assert {path.name for path in (tmp_path / "output").iterdir()} == set(GATE_FILES) - {PRESCREEN_FILE}
    before = state(client, tmp_path / "output", tmp_path / "releases")
    gate(two_leaves)
    assert state(client, tmp_path / "output", tmp_path / "releases") == before


def test_a_repeated_decision_is_compared_with_what_had_shipped_before_it(gate, two_leaves, tmp_path):
    """Against its own winner, which it has made the champion, no leaf would be an improvement."""
    gate({"pqat": two_leaves["pqat"]}, policy="goals: []")
    policy = "goals: [{figure: metric, min_improvement: 0.1, against: champion}]"
    first, again = gate(two_leaves, policy=policy), gate(two_leaves, policy=policy)
    assert first.winner == again.winner == "ptq"
    assert again.champion.leaf == "pqat"
    assert len(released(tmp_path / "releases")["history"]) == 2


def test_a_champion_is_needed_only_where_the_policy_compares_with_it(gate, two_leaves):
    policy = "goals: [{figure: metric, max_drop: 0.1, against: champion}]"
    with pytest.raises(CollaboptError, match="releases are kept nowhere"):
        gate(two_leaves, policy=policy, releases="")
    assert gate(two_leaves, releases="").winner == "ptq"


def test_a_champion_of_another_data_set_is_measured_on_this_one(
    gate, two_leaves, examples, make_leaf, samples, tmp_path
):
    """The first example classifies all samples as they are labelled."""
    directory = Path(make_leaf(examples[0], 0.5, stage="qat"))
    other = json.loads((directory / "report.json").read_text()) | {"dataset_digest": "another"}
    (directory / "report.json").write_text(json.dumps(other))
    baseline = json.loads((tmp_path / "baseline" / "stage.json").read_text()) | {"dataset_digest": "another"}
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stage.json").write_text(json.dumps(baseline))
    gate({"qat": directory}, baseline=tmp_path / "other", policy="goals: []")
    champion = gate(two_leaves, policy="goals: []").champion
    assert (champion.leaf, champion.figures["accuracy"]) == ("qat", 1.0)


def test_a_winner_that_cannot_be_proven_is_not_shipped(client, gate, two_leaves, samples, tmp_path):
    wrong = TestSamples(samples.inputs, (samples.labels + 1) % 4)
    with pytest.raises(CollaboptError, match="leaf 'ptq' is not proven"):
        gate(two_leaves, samples=wrong)
    assert not (tmp_path / "output" / "decision.json").exists()
    assert not (tmp_path / "releases").exists()
    assert client.search_registered_models() == []


def test_a_policy_may_want_the_run_to_fail(client, two_leaves, baseline_directory, samples, tmp_path):
    splits = {name: Samples(samples.inputs, samples.labels) for name in SPLIT_NAMES}
    write_dataset(Splits(splits), tmp_path / "data", source="test", seed=0)
    with pytest.raises(CollaboptError, match="none of 2 leaves qualifies"):
        gate_stage(
            baseline=baseline_directory,
            dataset=str(tmp_path / "data"),
            leaves=two_leaves,
            policy="{goals: [{figure: metric, max_drop: 0}], when_none_qualifies: fail}",
            output=str(tmp_path / "output"),
            report=str(tmp_path / "report.html"),
            model_name=MODEL,
            releases=str(tmp_path / "releases"),
            parameters={},
        )
    assert json.loads((tmp_path / "output" / "decision.json").read_text())["winner"] is None
    assert "Nothing ships" in (tmp_path / "report.html").read_text()
    assert parent_and_children(client)[0].info.status == "FAILED"
