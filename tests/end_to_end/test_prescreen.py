"""Pipelines that train only what may meet the policy."""

import json

import numpy as np
import pytest

from collabopt.components.engine.records import read_skipped
from collabopt.pipelines.tree import TREE

UNCLUSTERED = {"ptq", "qat", "pruned_ptq", "pqat"}
CLUSTERED = {leaf.name for leaf in TREE.leaves()} - UNCLUSTERED
QUICK = ["--param", "epochs=1", "--param", "qat_epochs=1"]
# Between what the unclustered leaves come to, pruned ones included, and the clustered ones with four clusters.
SMALL = "goals: [{figure: packed_bytes, threshold: 6000}]"
IMPOSSIBLE = "goals: [{figure: packed_bytes, threshold: 1}]"


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Options for a model of 10 thousand weights and its data."""
    import tf_keras

    directory = tmp_path_factory.mktemp("sources")
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 160)
    features = random.uniform(0, 0.3, (160, 8, 8, 1)).astype(np.float32)
    features[np.arange(160), :, labels * 2, 0] += 0.7
    np.savez(directory / "data.npz", x=features, y=labels)
    tf_keras.utils.set_random_seed(0)
    layers = tf_keras.layers
    body = [layers.Conv2D(8, 3, activation="relu"), layers.Flatten(), layers.Dense(32, activation="relu")]
    tf_keras.Sequential([layers.Input((8, 8, 1)), *body, layers.Dense(3, "softmax")]).save(directory / "model.keras")
    return ["--model", directory / "model.keras", "--data", directory / "data.npz"]


@pytest.fixture(scope="module")
def run(collabopt, sources, tmp_path_factory):
    def start(policy, *arguments):
        file = tmp_path_factory.mktemp("policy") / "policy.yaml"
        file.write_text(policy)
        return collabopt("run", *sources, "--policy", file, *QUICK, *arguments)

    return start


@pytest.fixture(scope="module")
def small(run):
    """A run of the whole tree whose policy only the clustered leaves can meet."""
    finished = run(SMALL, "--param", "clusters=4")
    assert finished.exit_code == 0, finished.output + finished.error
    return finished


def decision(run):
    return json.loads((run.result / "decision.json").read_text())


def epochs(run):
    """Stages that have trained."""
    return {line.split()[1] for line in run.output.splitlines() if line.split()[2:3] == ["epoch"]}


def test_what_cannot_meet_the_policy_is_not_trained(small):
    assert epochs(small) == {stage.name for stage in TREE if stage.trains} - UNCLUSTERED
    for leaf in UNCLUSTERED:
        assert [path.name for path in (small.result / "leaves" / leaf).iterdir()] == ["skipped.json"]
        assert "predicted 'packed_bytes' is" in read_skipped(small.result / "leaves" / leaf).reason
    assert all((small.result / "leaves" / leaf / "model.tflite").is_file() for leaf in CLUSTERED)


def test_the_winner_ships_and_every_leaf_has_a_verdict(small):
    verdicts = {verdict["leaf"]: verdict for verdict in decision(small)["verdicts"]}
    assert {leaf for leaf, verdict in verdicts.items() if not verdict["trained"]} == UNCLUSTERED
    assert decision(small)["winner"] in CLUSTERED
    assert (small.directory / "collabopt-releases" / "collabopt" / "champion.json").is_file()
    for leaf in UNCLUSTERED:
        assert verdicts[leaf]["reason"].startswith("not trained: predicted 'packed_bytes' is ")
        assert "accepted is at most 6,000 B" in verdicts[leaf]["reason"]
    assert "4 of 8 leaves cannot meet the policy; 4 of 11 stages are not trained" in small.output
    rows = [line.split() for line in small.output.splitlines()]
    assert ["ptq", "not", "trained"] in [row[:3] for row in rows]


def test_predictions_are_kept_beside_what_was_trained(small):
    found = json.loads((small.result / "prescreen.json").read_text())
    assert {each["leaf"] for each in found["predictions"]} == UNCLUSTERED | CLUSTERED
    assert {each["leaf"] for each in found["comparisons"]} == CLUSTERED
    for each in found["comparisons"]:
        report = json.loads((small.result / "leaves" / each["leaf"] / "report.json").read_text())
        sizes = {**report["deployed"], "npu_weight_bytes": report["footprint"]["npu"]["weight_bytes"]}
        assert each["trained"] == sizes[each["figure"]]
        assert each["error"] == pytest.approx(each["predicted"] / each["trained"] - 1)
    assert "Predicted before training" in (small.result / "report.html").read_text()


def test_mlflow_shows_why(small, tracking):
    client = tracking(small)
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    runs = {run.info.run_name: run for run in client.search_runs([experiment])}
    whys = {name for name, run in runs.items() if "collabopt.skipped" in run.data.tags}
    assert whys == UNCLUSTERED
    assert all(runs[leaf].data.metrics == {} for leaf in UNCLUSTERED)


def test_the_gate_again_says_where_another_policy_might_have_trained_more(collabopt, small, tmp_path):
    policy = tmp_path / "policy.yaml"
    policy.write_text("goals: []")
    again = collabopt("gate", "--dry-run", "--policy", policy, directory=small.directory)
    assert again.exit_code == 0, again.error
    assert " ".join(again.output.split()).count("not trained under another policy") == len(UNCLUSTERED)
    assert "under this one it might qualify" in " ".join(again.output.split())


def test_where_nothing_can_meet_the_policy_nothing_is_trained_and_nothing_ships(run):
    """Also not in the second half of the staged pipeline, which follows because no standard leaf suffices."""
    nothing = run(IMPOSSIBLE, "--pipeline", "staged")
    assert nothing.exit_code == 0, nothing.output + nothing.error
    assert epochs(nothing) == set()
    assert "none of 8 leaves qualifies, 8 of them not trained; nothing is shipped" in decision(nothing)["outcome"]
    assert "8 of 8 leaves cannot meet the policy; 11 of 11 stages are not trained" in nothing.output
    assert not (nothing.directory / "collabopt-releases").exists()


def test_what_could_not_be_made_after_training_either_is_an_error_before_it(run):
    refused = run(SMALL, "--param", "clusters=100000")
    assert refused.exit_code == 1
    assert "stage 'prescreen' failed: leaf '" in refused.error
    assert "cannot be made: no trainable layer has more than 100000 distinct weights" in refused.error
    assert "prescreen=off" in refused.error
    assert epochs(refused) == set()


def test_another_way_to_prescreen_is_refused_before_anything_begins(run):
    refused = run(SMALL, "--param", "prescreen=maybe")
    assert refused.exit_code == 1
    assert "'maybe' is no way to prescreen" in refused.error and "skip, report, off" in refused.error
    assert not refused.result.exists()
