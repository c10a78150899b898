"""How a stage ends: its directory written, its figures logged, its scalars handed on."""

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.deployed.file_sizes import file_sizes
from collabopt.components.engine.deployed.leaf import Leaf
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import (
    CURVE_FILE,
    PACKED_FILE,
    PROOF_SAMPLES,
    TFLITE_FILE,
    DeployedModel,
    Interval,
    LeafReport,
    MetricOfRecord,
    Proof,
    StageRecord,
    validation_name,
    write_record,
)
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.techniques import TECHNIQUES
from collabopt.components.engine.tracking import StageRun
from collabopt.components.engine.training.task import Task

Curve = Sequence[Mapping[str, float]]


def finish_interior(model: Any, record: StageRecord, output: Path, run: StageRun, curve: Curve = ()) -> StageResult:
    """Writes a fp32 stage: the model, `stage.json` and, if it trained, its curve."""
    from collabopt.components.engine.models.store import save_model

    record = _with_outcome(record)
    output.mkdir(parents=True, exist_ok=True)
    save_model(model, output)
    return _finish(record, output, run, [write_record(record, output), *_write_curve(curve, output)])


def finish_leaf(
    leaf: Leaf, record: StageRecord, output: Path, run: StageRun, data: StoredDataset, task: Task, curve: Curve
) -> StageResult:
    """Writes a leaf: `model.tflite`, plain, packed and as C source, what it shows, costs, and does in LiteRT.

    Args:
        leaf: The file, and what it kept of its ancestors' claims.
        record: Its record, without metrics; the last step's settings name the accelerator.
        output: Directory to write.
        run: The stage's MLflow run.
        data: The data set.
        task: Its metrics.
        curve: One row per epoch.
    """
    from collabopt.components.engine.deployed.c_array import write_c_array
    from collabopt.components.engine.deployed.evaluate import predict
    from collabopt.components.engine.deployed.footprint import footprint_scalars, measure_footprint
    from collabopt.components.engine.deployed.inspect import inspect_and_pack
    from collabopt.components.engine.training.confidence import confidence_interval

    deployed, packed = inspect_and_pack(leaf.tflite)
    outputs, labels = predict(leaf.tflite, data.inputs("test")), data.labels("test")
    measured = task.measure(outputs, labels) | _on_validation(
        task, predict(leaf.tflite, data.inputs("validation")), data
    )
    interval = confidence_interval(task.metric, outputs, labels)
    footprint = measure_footprint(leaf.tflite, record.lineage[-1].settings["accelerator"])
    metrics = {
        **measured,
        **metric_drop(record.metric, measured),
        **_bounds(record.metric, interval),
        "test_samples": float(len(labels)),
        **_deployed_scalars(deployed),
        **footprint_scalars(footprint),
        "broken_layers": float(len({each.layer for each in leaf.contract.broken})),
    }
    record = _with_outcome(record.model_copy(update={"metrics": metrics}))
    report = LeafReport(
        **dict(record),
        deployed=deployed,
        contract=leaf.contract,
        interval=interval,
        footprint=footprint,
        proof=_proof(task, outputs, labels),
    )
    output.mkdir(parents=True, exist_ok=True)
    (output / TFLITE_FILE).write_bytes(leaf.tflite)
    (output / PACKED_FILE).write_bytes(packed)
    write_c_array(leaf.tflite, deployed, output, stage=record.stage)
    written = [output / TFLITE_FILE, write_record(report, output), *_write_curve(curve, output)]
    return _finish(report, output, run, written)


def measure_keras(model: Any, data: StoredDataset, task: Task) -> dict[str, float]:
    """The task's metrics of a fp32 model on the test split, and on the validation split."""

    def predict(split: str) -> np.ndarray:
        return model.predict(data.inputs(split), batch_size=256, verbose=0)

    return task.measure(predict("test"), data.labels("test")) | _on_validation(task, predict("validation"), data)


def metric_drop(metric: MetricOfRecord, measured: Mapping[str, float]) -> dict[str, float]:
    """`<metric>_drop`: how much worse than the baseline."""
    return {f"{metric.name}_drop": metric.drop(measured[metric.name])}


def _on_validation(task: Task, outputs: np.ndarray, data: StoredDataset) -> dict[str, float]:
    """The same metrics on the validation split, by which choices are made that must not see test data."""
    measured = task.measure(outputs, data.labels("validation"))
    return {validation_name(name): value for name, value in measured.items()}


def _bounds(metric: MetricOfRecord, interval: Interval | None) -> dict[str, float]:
    """`<metric>_low` and `<metric>_high`, the ends of its confidence interval."""
    return {} if interval is None else {f"{metric.name}_low": interval.low, f"{metric.name}_high": interval.high}


def _proof(task: Task, outputs: np.ndarray, labels: np.ndarray) -> Proof:
    samples = min(PROOF_SAMPLES, len(labels))
    return Proof(samples=samples, metrics=task.measure(outputs[:samples], labels[:samples]))


def _deployed_scalars(deployed: DeployedModel) -> dict[str, float]:
    """Sizes; sparsity and distinct values over all weights but depthwise ones, which no stage prunes or clusters."""
    tensors = [tensor for tensor in deployed.weights if tensor.op != "DEPTHWISE_CONV_2D"]
    total = sum(math.prod(tensor.shape) for tensor in tensors)
    if not total:
        raise CollaboptError("the converted model holds no convolution or fully connected weights")
    return {
        **file_sizes(deployed),
        "sparsity": sum(tensor.zero_fraction * math.prod(tensor.shape) for tensor in tensors) / total,
        "max_distinct_values_per_channel": float(max(t.max_distinct_values_per_channel for t in tensors)),
        "max_distinct_values_per_tensor": float(max(t.distinct_values for t in tensors)),
        "float_operators": float(len(deployed.float_operators)),
    }


def _with_outcome(record: StageRecord) -> StageRecord:
    finite = {name: value for name, value in record.metrics.items() if math.isfinite(value)}
    *way, last = record.lineage
    outcome = {
        "metric_value": finite.get(record.metric.name),
        "metrics": {} if TECHNIQUES[record.technique].deploys else finite,
        "mlflow_run_id": record.mlflow.get("run_id", ""),
    }
    return record.model_copy(update={"lineage": [*way, last.model_copy(update=outcome)]})


def _finish(record: StageRecord, output: Path, run: StageRun, written: Sequence[Path]) -> StageResult:
    run.log_metrics(record.metrics)
    for path in written:
        run.log_artifact(path)
    run.catch_up()
    if run.lost:
        record = record.model_copy(update={"mlflow": {**record.mlflow, "incomplete": run.lost}})
        write_record(record, output)
    emit(record.name, "finished", metrics=record.metrics)
    metadata = {"stage": record.stage, "technique": record.technique}
    metadata |= {f"mlflow_{name}": value for name, value in record.mlflow.items()}
    if isinstance(record, LeafReport):
        metadata["sha256"] = record.deployed.sha256
    return StageResult(record.metrics, metadata)


def _write_curve(curve: Curve, output: Path) -> list[Path]:
    if not curve:
        return []
    path = output / CURVE_FILE
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(curve[0]))
        writer.writeheader()
        writer.writerows(curve)
    return [path]
