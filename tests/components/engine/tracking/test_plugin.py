"""With KFP's native MLflow plugin: every component of the catalogue as a task of a pipeline run that it mirrors.

What its driver and launcher do to MLflow is done here over the same REST calls (kubeflow/pipelines 2.17
backend/src/v2/common/plugins/mlflow/handler.go): a nested run before the task, its id in the environment, and after it
one batch with all arguments, JSON-encoded, and the scalars, then the end of the run. A batch is refused as a whole.
"""

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import requests
from kfp import dsl
from mlflow import MlflowClient

from collabopt import components
from collabopt.components.engine.stage_host import stage_host
from collabopt.pipelines import stages_of
from collabopt.pipelines.tree import ROOT, TREE

PIPELINE_RUN = "3f2b9c1e"
TRAINING = {"epochs": 1, "batch_size": 64}


@dataclass
class Kubeflow:
    """The backend with its plugin, as far as MLflow can see it."""

    address: str
    directory: Path
    experiment: str
    root: str
    refused: dict[str, str] = field(default_factory=dict)
    runs: dict[str, str] = field(default_factory=dict)
    params: dict[str, dict[str, str]] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)
    outputs: dict[str, dict[str, object]] = field(default_factory=dict)

    def call(self, endpoint, body):
        return requests.post(f"{self.address}/api/2.0/mlflow/{endpoint}", json=body, timeout=60)

    def start(self, name, parent=None):
        tags = [{"key": "mlflow.parentRunId", "value": parent or self.root}]
        body = {"experiment_id": self.experiment, "run_name": name, "tags": tags, "start_time": 1}
        return self.call("runs/create", body).json()["run"]["info"]["run_id"]

    def end(self, task, run_id, arguments, metrics):
        """What is done for a cached task too."""
        params = {key: json.dumps(value, separators=(",", ":")) for key, value in arguments.items()}
        batch = {
            "run_id": run_id,
            "params": [{"key": key, "value": value} for key, value in params.items()],
            "metrics": [{"key": key, "value": value, "timestamp": 0, "step": 0} for key, value in metrics.items()],
        }
        answer = self.call("runs/log-batch", batch)
        if answer.status_code != 200:
            self.refused[task] = answer.text
        self.call("runs/update", {"run_id": run_id, "status": "FINISHED", "end_time": 2})
        self.runs[task], self.params[task], self.metrics[task] = run_id, params, metrics

    def run(self, task, component, **arguments):
        """Runs a component as the task of a name; artifacts among the arguments are inputs."""
        function = getattr(components, component)
        given = {
            key: spec.default
            for key, spec in function.component_spec.inputs.items()
            if not spec.type.startswith("system.")
        }
        artifacts = {key: value for key, value in arguments.items() if isinstance(value, dsl.Artifact)}
        given |= {key: value for key, value in arguments.items() if key not in artifacts}
        made = {
            key: (dsl.Metrics if "Metrics" in spec.type else dsl.Model)(name=key, uri=str(self.directory / task / key))
            for key, spec in (function.component_spec.outputs or {}).items()
            if spec.type.startswith("system.")
        }
        run_id = self.start(f"{component}-task")
        injected = {
            "MLFLOW_RUN_ID": run_id,
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_EXPERIMENT_ID": self.experiment,
            # Of another experiment: what is injected is what counts.
            "MLFLOW_EXPERIMENT_NAME": "of-the-user",
            "COLLABOPT_PIPELINE_RUN_ID": PIPELINE_RUN,
        }
        with pytest.MonkeyPatch.context() as environment:
            for name, value in injected.items():
                environment.setenv(name, value)
            (self.directory / task).mkdir()
            returned = function.python_func(**artifacts, **made, **given)
            assert os.environ["MLFLOW_RUN_ID"] == run_id
        scalars = made["metrics"].metadata if "metrics" in made else {}
        self.end(task, run_id, given, {key: value for key, value in scalars.items() if isinstance(value, float)})
        self.outputs[task] = made
        return returned


@pytest.fixture(scope="module")
def client(mlflow_server):
    return MlflowClient(tracking_uri=mlflow_server)


@pytest.fixture(scope="module")
def kubeflow(mlflow_server, client, tmp_path_factory):
    """A pipeline run of every component, the whole tree in it; one leaf comes from KFP's cache."""
    import tf_keras

    directory = tmp_path_factory.mktemp("kubeflow")
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, 160)
    features = random.uniform(0, 0.3, (160, 8, 8, 1)).astype(np.float32)
    features[np.arange(160), :, labels * 2, 0] += 0.7
    np.savez(directory / "data.npz", x=features, y=labels)
    layers = tf_keras.layers
    body = [layers.Conv2D(4, 3, activation="relu", name="conv"), layers.Flatten(), layers.Dense(3, "softmax", name="d")]
    tf_keras.Sequential([layers.Input((8, 8, 1)), *body]).save(directory / "model.keras")

    experiment = client.create_experiment(f"KFP-Default-{directory.name}")
    root = client.create_run(experiment, run_name="nightly", tags={"kfp.pipeline_run_id": PIPELINE_RUN}).info.run_id
    backend = Kubeflow(mlflow_server, directory, experiment, root)
    source = {"model": str(directory / "model.keras"), "data": str(directory / "data.npz")}
    configured = backend.run("configure", "configure", stages=stages_of("exhaustive"), **source)
    backend.run("dataset", "load_dataset", source=source["data"], source_digest=configured.data_digest)
    dataset = backend.outputs["dataset"]["dataset"]
    backend.run(ROOT, "import_model", source=source["model"], source_digest=configured.model_digest, dataset=dataset)
    branches = {stage.name: {"parent": stage.parent, "technique": stage.technique.name} for stage in TREE}
    around = {"baseline": backend.outputs[ROOT]["model"], "dataset": dataset}
    # Its own process would predict; this one has computed with TensorFlow, and cannot be forked any more.
    reasons = backend.run("prescreen", "prescreen", **around, stages=branches, mode="off")
    with stage_host():
        backend.run("propose", "propose_trials", **around, stages=branches, parameters=configured.parameters, size=1)
    for stage in TREE:
        training = TRAINING if stage.trains else {}
        parent = backend.outputs[stage.parent]["model"]
        backend.run(
            stage.name,
            stage.technique.name,
            parent=parent,
            dataset=dataset,
            stage=stage.name,
            skip=getattr(reasons, stage.name),
            **training,
        )
    _come_from_cache(backend, client, "ptq")
    leaves = {leaf.name: backend.outputs[leaf.name]["model"] for leaf in TREE.leaves()}
    around |= {"policy": "goals: []"}
    backend.run("assess", "assess_leaves", **around, **leaves)
    predictions = backend.outputs["prescreen"]["predictions"]
    backend.run(
        "gate", "deployment_gate", **around, **leaves, predictions=predictions, parameters=configured.parameters
    )
    return backend


def _come_from_cache(backend, client, task):
    """As if the stage had run in an earlier pipeline run: the plugin gives it a run, with arguments and scalars."""
    client.delete_run(backend.runs[task])
    branch = backend.start("condition-branches-1")
    arguments = {key: json.loads(value) for key, value in backend.params[task].items()}
    backend.end(task, backend.start("post-training-quantize", branch), arguments, backend.metrics[task])


def test_the_whole_catalogue_has_run(kubeflow):
    around = {"prescreen": "prescreen", "assess": "assess_leaves", "gate": "deployment_gate"}
    around |= {"propose": "propose_trials"}
    tasks = {"configure": "configure", **around, **stages_of("exhaustive")}
    assert set(tasks.values()) == set(components.CATALOGUE)
    assert set(kubeflow.runs) == set(tasks)


def test_every_batch_is_accepted(kubeflow):
    assert kubeflow.refused == {}


@pytest.mark.parametrize(
    "task", ["configure", "dataset", ROOT, "prescreen", "propose", *(stage.name for stage in TREE), "assess", "gate"]
)
def test_nothing_that_kubeflow_logs_is_lost_or_changed(kubeflow, client, task):
    run = client.get_run(kubeflow.runs[task])
    assert run.data.params.items() >= kubeflow.params[task].items()
    assert run.data.metrics.items() >= kubeflow.metrics[task].items()
    assert run.info.status == "FINISHED"
    assert run.info.run_name.endswith("-task") or task == "ptq"


@pytest.mark.parametrize("stage", [stage.name for stage in TREE])
def test_what_the_stage_logs_is_there_too(kubeflow, client, stage):
    run = client.get_run(kubeflow.runs[stage])
    assert run.data.tags["collabopt.stage"] == stage
    assert run.data.params[f"{stage}.seed"] == "0" and run.data.params["seed"] == "0"
    assert run.data.metrics.items() >= {"accuracy": kubeflow.metrics[stage]["accuracy"]}.items()
    if TREE[stage].trains:
        assert [point.step for point in client.get_metric_history(run.info.run_id, "train/loss")] == [1]


def test_a_task_that_kubeflow_took_from_its_cache_is_completed_where_it_is(kubeflow, client):
    run = client.get_run(kubeflow.runs["ptq"])
    assert run.info.run_name == "post-training-quantize"
    assert run.data.tags["collabopt.cached_from"]
    assert run.data.tags["collabopt.technique"] == "post_training_quantize"
    assert run.data.metrics["tflite_bytes"] > 0


def test_there_is_one_run_a_task_and_none_elsewhere(kubeflow, client):
    found = {run.info.run_id for run in client.search_runs([kubeflow.experiment])}
    branch = {
        run.info.run_id
        for run in client.search_runs([kubeflow.experiment])
        if run.info.run_name == "condition-branches-1"
    }
    assert found == {kubeflow.root, *kubeflow.runs.values(), *branch}
    assert client.get_experiment_by_name("of-the-user") is None


def test_the_gate_completes_the_plugins_run_and_leaves_its_end_to_the_plugin(kubeflow, client):
    root = client.get_run(kubeflow.root)
    assert root.info.run_name == "nightly"
    assert root.info.status == "RUNNING"
    assert root.data.params["qat_epochs"] == "3"
    assert root.data.tags["winner"] in {leaf.name for leaf in TREE.leaves()}
    assert root.data.metrics["leaves"] == len(TREE.leaves())


@pytest.mark.parametrize("name", components.CATALOGUE)
def test_no_input_of_a_component_has_a_name_that_a_stage_logs_under(name):
    """A stage's params are named `<stage>.<setting>`; no input has a dot."""
    assert not [key for key in getattr(components, name).component_spec.inputs if "." in key]
