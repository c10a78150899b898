"""The main job: the tree on the embedded example, as a user runs it and finds it afterwards."""

import hashlib
import json

import numpy as np
import pytest

from collabopt.components.engine.records import GATE_FILES, read_leaf_report
from collabopt.pipelines.tree import ROOT, TREE

QUICK = ["--param", "epochs=1", "--param", "qat_epochs=1"]
ALL = ["--param", "prescreen=report"]
LAX = "{figure: metric, max_drop: 0.2}"
SETTING = ["--set", "pruned.learning_rate=0.002"]
LEAVES = {leaf.name for leaf in TREE.leaves()}
STANDARD = {leaf.name for leaf in TREE.standard().leaves()}


@pytest.fixture(scope="module")
def exhaustive(collabopt):
    return collabopt("run", "--example", "digits", *QUICK, *SETTING)


@pytest.fixture(scope="module")
def strict(collabopt, tmp_path_factory):
    """No standard leaf is this small; clustering what has been pruned gets there. All are trained, to be compared."""
    policy = tmp_path_factory.mktemp("policy") / "strict.yaml"
    policy.write_text(f"goals: [{LAX}, {{figure: gzip_bytes, threshold: 10500}}]\npriority: [gzip_bytes, metric]\n")
    return collabopt("run", "--example", "digits", "--pipeline", "staged", "--policy", policy, *ALL, *QUICK, *SETTING)


def decision_of(run):
    return json.loads((run.result / "decision.json").read_text())


def reports_of(run):
    return {path.name: read_leaf_report(path) for path in (run.result / "leaves").iterdir()}


def test_every_leaf_of_the_tree_is_built_and_judged(exhaustive):
    assert exhaustive.exit_code == 0, exhaustive.error
    assert set(reports_of(exhaustive)) == LEAVES
    assert {verdict["leaf"] for verdict in decision_of(exhaustive)["verdicts"]} == LEAVES
    assert all(verdict["reason"] for verdict in decision_of(exhaustive)["verdicts"])


def test_output_holds_what_is_wanted_and_nothing_else(exhaustive):
    assert {path.name for path in exhaustive.result.iterdir()} == {"leaves", "logs", *GATE_FILES}
    for leaf in LEAVES:
        files = {path.name for path in (exhaustive.result / "leaves" / leaf).iterdir()}
        assert files == {"model.tflite", "model.tflite.gz", "report.json", "model_data.cc", "model_data.h"}
    logs = {path.stem for path in (exhaustive.result / "logs").iterdir()}
    assert logs == {"pipeline", "configure", "dataset", ROOT, "prescreen", "gate", *(stage.name for stage in TREE)}


def test_reports_describe_the_files_beside_them(exhaustive):
    for leaf, report in reports_of(exhaustive).items():
        content = (exhaustive.result / "leaves" / leaf / "model.tflite").read_bytes()
        assert report.deployed.sha256 == hashlib.sha256(content).hexdigest()
        assert (report.deployed.input_dtype, report.deployed.output_dtype) == ("int8", "int8")
        assert report.deployed.float_operators == []
        assert [step.stage for step in report.lineage] == [ROOT, *(stage.name for stage in TREE.path(leaf))]
        assert report.pathway == TREE.pathway(leaf)


def test_leaves_keep_what_their_ancestors_won(exhaustive):
    for leaf, report in reports_of(exhaustive).items():
        ancestors = {stage.name for stage in TREE.path(leaf)}
        assert report.contract.holds, leaf
        if "pruned" in ancestors:
            assert report.metrics["sparsity"] >= 0.49, leaf
        if ancestors & {"clustered", "pruned_clustered"}:
            assert report.metrics["max_distinct_values_per_tensor"] <= 16, leaf
        assert report.metrics["accuracy"] >= 0.9, leaf


def test_the_screen_ends_with_the_leaf_table_and_the_verdict(exhaustive):
    for leaf in LEAVES:
        assert leaf in exhaustive.output
    assert f"winner: {decision_of(exhaustive)['winner']}" in exhaustive.output
    assert "mlflow ui --backend-store-uri" in exhaustive.output


def test_mlflow_has_one_parent_and_a_child_per_stage(exhaustive, tracking):
    client = tracking(exhaustive)
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    runs = client.search_runs([experiment], max_results=100)
    (parent,) = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = {run.info.run_name: run for run in runs if run is not parent}
    assert set(children) == {"dataset", ROOT, "deployment_gate", *(stage.name for stage in TREE)}
    assert len(runs) == len(children) + 1
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children.values())
    assert {run.info.status for run in runs} == {"FINISHED"}

    winner = decision_of(exhaustive)["winner"]
    assert parent.data.params["data"] == "example://digits"
    assert (parent.data.params["sparsity"], parent.data.params["clusters"]) == ("0.5", "16")
    assert parent.data.params["pruned.learning_rate"] == "0.002"
    assert children["pruned"].data.params["pruned.learning_rate"] == "0.002"
    assert parent.data.metrics["accuracy"] == children[winner].data.metrics["accuracy"]
    assert winner in parent.data.tags["mlflow.note.content"]

    pqat = children["pqat"]
    assert pqat.data.params["pqat.epochs"] == "1"
    assert pqat.data.tags["collabopt.parent_stage"] == "pruned"
    assert pqat.data.tags["collabopt.pathway"] == "collaborative"
    assert pqat.data.tags["collabopt.techniques"] == "import_model>prune>sparsity_preserving_qat"
    wanted = {"accuracy", "accuracy_drop", "tflite_bytes", "gzip_bytes", "sparsity", "max_distinct_values_per_channel"}
    assert wanted <= set(pqat.data.metrics)
    assert len(client.get_metric_history(pqat.info.run_id, "validation/accuracy")) == 1
    files = {file.path for file in client.list_artifacts(pqat.info.run_id)}
    assert {"model.tflite", "report.json", "training_curve.csv"} <= files


def test_mlflow_shows_the_figures_of_the_reports(exhaustive, tracking):
    client = tracking(exhaustive)
    for leaf, report in reports_of(exhaustive).items():
        metrics = client.get_run(report.mlflow["run_id"]).data.metrics
        assert {name: metrics[name] for name in report.metrics} == report.metrics, leaf


def test_the_champion_in_the_registry_is_the_winner_and_predicts(exhaustive, tracking):
    client = tracking(exhaustive)
    import mlflow

    from collabopt.components.engine.deployed.evaluate import predict

    decision = decision_of(exhaustive)
    version = client.get_model_version_by_alias("collabopt", "champion")
    assert version.tags["sha256"] == decision["winner_sha256"]
    inputs = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype(np.float32)
    content = (exhaustive.result / "leaves" / decision["winner"] / "model.tflite").read_bytes()
    champion = mlflow.pyfunc.load_model("models:/collabopt@champion")
    np.testing.assert_allclose(champion.predict(inputs), predict(content, inputs), atol=1e-6)


def test_staged_stops_after_the_standard_pathway_when_it_suffices(collabopt, tmp_path):
    policy = tmp_path / "lax.yaml"
    policy.write_text(f"goals: [{LAX}]\n")
    run = collabopt("run", "--example", "digits", "--pipeline", "staged", "--policy", policy, *QUICK)
    assert run.exit_code == 0, run.error
    assert set(reports_of(run)) == STANDARD
    assert decision_of(run)["winner"] in STANDARD


def test_staged_goes_on_to_the_collaborative_pathway_when_it_must(strict):
    assert strict.exit_code == 0, strict.error
    assert set(reports_of(strict)) == LEAVES
    qualified = {verdict["leaf"] for verdict in decision_of(strict)["verdicts"] if verdict["qualified"]}
    assert decision_of(strict)["winner"] in qualified
    assert qualified and not qualified & STANDARD


def test_the_same_seed_gives_the_same_bytes_in_another_pipeline(exhaustive, strict):
    digests = [{leaf: r.deployed.sha256 for leaf, r in reports_of(run).items()} for run in (exhaustive, strict)]
    assert digests[0] == digests[1]


def test_no_leaf_qualifying_is_an_outcome_and_registers_nothing(collabopt, tracking, tmp_path):
    policy = tmp_path / "impossible.yaml"
    policy.write_text("goals: [{figure: tflite_bytes, threshold: 100}]\n")
    run = collabopt("run", "--example", "digits", "--pipeline", "quantization", "--policy", policy, *QUICK)
    assert run.exit_code == 0, run.error
    assert "no leaf qualifies" in run.output
    assert decision_of(run)["winner"] is None
    assert tracking(run).search_registered_models() == []


def test_prescreening_has_known_what_every_leaf_weighs_and_costs_within_five_percent(collabopt, exhaustive):
    done = collabopt("prescreen", "--example", "digits", "--against", exhaustive.result, directory=exhaustive.directory)
    assert done.exit_code == 0, done.error
    assert "largest error" in done.output
    compared = json.loads((exhaustive.directory / "prescreen.json").read_text())["comparisons"]
    figures = {"packed_bytes", "gzip_bytes", "zip_bytes", "npu_weight_bytes"}
    assert {(each["leaf"], each["figure"]) for each in compared} == {
        (leaf, name) for leaf in LEAVES for name in figures
    }
    assert max(abs(each["error"]) for each in compared) < 0.05
