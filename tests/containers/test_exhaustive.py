"""The whole tree in containers, through a real MLflow server and a bucket: one container for each stage."""

import os

import numpy as np
import pytest

from collabopt.pipelines import load_pipeline
from collabopt.pipelines.outcome import read_outcome
from collabopt.pipelines.tree import ROOT, TREE

LEAVES = {leaf.name for leaf in TREE.leaves()}
STAGES = {stage.name for stage in TREE}
NAME = "digits-in-containers"


@pytest.mark.slow
def test_every_stage_runs_in_a_container_of_the_image_and_the_winner_is_released(
    confined_runner, containers, mlflow_server, gcs_server, bucket, monkeypatch
):
    root = confined_runner(
        {
            "MLFLOW_TRACKING_URI": mlflow_server,
            "STORAGE_EMULATOR_HOST": gcs_server,
            "COLLABOPT_PIPELINE_RUN_ID": "in-containers",
            "COLLABOPT_PIPELINE_NAME": "exhaustive-in-containers",
        }
    )
    load_pipeline("exhaustive")(epochs=1, qat_epochs=1, model_name=NAME, releases=bucket)

    outcome = read_outcome(root)
    assert {leaf.stage for leaf in outcome.leaves} == LEAVES
    assert all(leaf.report.contract.holds for leaf in outcome.leaves)
    assert all(leaf.report.metrics["accuracy"] >= 0.9 for leaf in outcome.leaves)
    assert outcome.decision.winner in LEAVES
    assert len(containers) == len({"configure", "dataset", ROOT, "prescreen", "gate"} | STAGES)
    for container in containers:
        assert container.exit_code == 0
        assert_confined(container.attributes)
    assert_in_mlflow(mlflow_server, outcome, monkeypatch)
    assert_in_bucket(bucket, outcome)


def assert_confined(attributes):
    assert attributes["Config"]["User"] == "1001:0"
    assert attributes["Config"]["Image"] == os.environ["COLLABOPT_IMAGE"]
    host = attributes["HostConfig"]
    assert host["ReadonlyRootfs"] and host["CapDrop"] == ["ALL"] and host["SecurityOpt"] == ["no-new-privileges"]


def assert_in_mlflow(server, outcome, monkeypatch):
    import mlflow

    from collabopt.components.engine.deployed.evaluate import predict

    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    client = mlflow.MlflowClient(server)
    experiment = client.get_experiment_by_name("collabopt").experiment_id
    (parent,) = client.search_runs([experiment], "tags.`kfp.pipeline_run_id` = 'in-containers'")
    children = client.search_runs([experiment], f"tags.`mlflow.parentRunId` = '{parent.info.run_id}'")
    assert {run.info.run_name for run in children} == {"dataset", ROOT, "deployment_gate"} | STAGES
    assert {run.info.status for run in [parent, *children]} == {"FINISHED"}
    assert parent.info.run_name == "exhaustive-in-containers"
    winner = next(leaf for leaf in outcome.leaves if leaf.stage == outcome.decision.winner)
    assert parent.data.metrics["accuracy"] == winner.report.metrics["accuracy"]

    version = client.get_model_version_by_alias(NAME, "champion")
    assert version.tags["sha256"] == outcome.decision.winner_sha256
    inputs = np.random.default_rng(0).uniform(0, 1, (5, 8, 8, 1)).astype(np.float32)
    mlflow.set_tracking_uri(server)
    champion = mlflow.pyfunc.load_model(f"models:/{NAME}@champion")
    expected = predict((winner.directory / "model.tflite").read_bytes(), inputs)
    np.testing.assert_allclose(champion.predict(inputs), expected, atol=1e-6)


def assert_in_bucket(uri, outcome):
    from collabopt.components.engine.release.object_store import open_store
    from collabopt.components.engine.release.pointer import champion_of

    pointer, _ = champion_of(open_store(uri), NAME)
    assert pointer.champion == outcome.decision.winner_sha256
