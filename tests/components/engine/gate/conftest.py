"""Real, tiny `.tflite` leaves, and reports about them."""

import contextlib
import shutil

import pytest
from mlflow import MlflowClient

from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.gate.sample import TestSamples
from collabopt.components.engine.records import (
    BrokenLayer,
    Contract,
    DeployedModel,
    Footprint,
    LeafReport,
    MetricOfRecord,
    NpuEstimate,
    Proof,
    StageRecord,
    Step,
    write_record,
)
from collabopt.components.engine.release.directory import DirectoryStore
from collabopt.components.engine.training.task import DEFAULT_TASK, load_task

CHANGES = {
    DirectoryStore: ("create", "replace"),
    MlflowClient: (
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
    ),
}

TECHNIQUES = {
    "ptq": ("post_training_quantize",),
    "qat": ("quantize_aware_train",),
    "pqat": ("prune", "sparsity_preserving_qat"),
}

NPU = {
    "accelerator": "ethos-u55-128",
    "system_config": "Ethos_U55_High_End_Embedded",
    "memory_mode": "Shared_Sram",
    "tool": "vela 5.0.0",
    "supported": True,
    "npu_operators": 4,
}


@pytest.fixture(scope="session")
def make_baseline():
    def make(value=0.9, metric="accuracy", higher_is_better=True):
        return StageRecord(
            lineage=[Step(stage="baseline", technique="import_model")],
            task=DEFAULT_TASK,
            dataset_digest="d1",
            metric=MetricOfRecord(name=metric, higher_is_better=higher_is_better, baseline=value),
            metrics={metric: value},
        )

    return make


@pytest.fixture(scope="session")
def make_report(make_baseline):
    def make(
        value=0.9,
        *,
        stage="ptq",
        baseline=None,
        gzip_bytes=500,
        tflite_bytes=1000,
        zip_bytes=600,
        sha256="ab",
        broken=(),
        packed_bytes=None,
        metrics=None,
        npu=None,
    ):
        """A report; `packed_bytes` is `gzip_bytes` where not given, `npu` fields of a supported `NpuEstimate`."""
        baseline = baseline or make_baseline()
        lineage = list(baseline.lineage)
        techniques = TECHNIQUES.get(stage, ("post_training_quantize",))
        for technique in techniques:
            name = stage if technique == techniques[-1] else "pruned"
            lineage.append(Step(stage=name, technique=technique, settings={"seed": 0}))
        return LeafReport(
            lineage=lineage,
            task=baseline.task,
            dataset_digest=baseline.dataset_digest,
            metric=baseline.metric,
            metrics={**({} if value is None else {baseline.metric.name: value}), **(metrics or {})},
            deployed=DeployedModel(
                sha256=sha256,
                tflite_bytes=tflite_bytes,
                gzip_bytes=gzip_bytes,
                zip_bytes=zip_bytes,
                packed_bytes=gzip_bytes if packed_bytes is None else packed_bytes,
                input_dtype="int8",
                output_dtype="int8",
                operators={"CONV_2D": 1},
            ),
            contract=Contract(
                layers=sorted(broken),
                broken=[BrokenLayer(layer=name, what="12 of 34 zeros are lost") for name in broken],
            ),
            footprint=None
            if npu is None
            else Footprint(npu=NpuEstimate(**{**NPU, **npu}), host=[], activation_bytes=9),
        )

    return make


@pytest.fixture(scope="session")
def samples(examples):
    """Test samples that the first example classifies well."""
    return TestSamples(examples[0].x, examples[0].y.argmax(axis=-1))


@pytest.fixture
def make_leaf(make_report, samples, tmp_path):
    """Writes a leaf directory for an example, with a proof that holds, and returns its path."""

    def make(example, value=0.9, *, stage="ptq"):
        directory = tmp_path / "leaves" / f"{stage}-{value}-{example.tflite.stem}"
        directory.mkdir(parents=True)
        data = example.tflite.read_bytes()
        (directory / "model.tflite").write_bytes(data)
        report = make_report(value, stage=stage)
        metrics = load_task(report.task).measure(predict(data, samples.inputs), samples.labels)
        proof = Proof(samples=len(samples.labels), metrics=metrics)
        write_record(report.model_copy(update={"deployed": inspect_tflite(data), "proof": proof}), directory)
        return str(directory)

    return make


@pytest.fixture
def baseline_directory(make_baseline, tmp_path):
    directory = tmp_path / "baseline"
    directory.mkdir()
    write_record(make_baseline(), directory)
    return str(directory)


@pytest.fixture
def client(empty_store, tmp_path, monkeypatch):
    """A store of its own, in a pipeline run of its own."""
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("COLLABOPT_PIPELINE_RUN_ID", "run-1")
    monkeypatch.setenv("COLLABOPT_PIPELINE_NAME", "exhaustive-1")
    return MlflowClient(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db")


class Killed(BaseException):
    """Nothing in the process runs after this: every later call raises it too."""


@pytest.fixture
def kill_before_change(monkeypatch):
    """Runs a function that is killed once it has made so many changes to MLflow or the releases; gives their names."""

    def run(number, function):
        done: list[str] = []

        def guard(owner, name):
            call = getattr(owner, name)

            def guarded(self, *args, **kwargs):
                if len(done) >= number:
                    raise Killed(name)
                result = call(self, *args, **kwargs)
                done.append(name)
                return result

            patched.setattr(owner, name, guarded)

        with monkeypatch.context() as patched:
            for owner, names in CHANGES.items():
                for name in names:
                    guard(owner, name)
            with contextlib.suppress(Killed):
                function()
        return done

    return run
