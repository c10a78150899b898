"""Prunes or clusters one layer at a time, without training, and measures the model in fp32 on calibration data."""

import functools
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.forked import run_forked
from collabopt.components.engine.prescreen.predict import preload
from collabopt.components.engine.sensitivity.records import Scan

# From the gentlest to the strongest.
SPARSITIES = (0.3, 0.5, 0.7, 0.8, 0.9)
CLUSTERS = (32, 16, 8, 4)
# Calibration samples that are used at most, unless more are asked for.
MOST_SAMPLES = 500

_BATCH = 256
# TensorFlow takes all cores for one model already; a second process fills the gaps that k-means and Python leave.
_PROCESSES = 2


def scan(
    baseline: Path,
    dataset: Path,
    task: str,
    *,
    samples: int = MOST_SAMPLES,
    allow_lambda: bool = False,
    log: Path | None = None,
) -> Scan:
    """Scans every layer that can be pruned or clustered, in two processes.

    This process only imports TensorFlow; see `preload`.

    Args:
        baseline: Directory of the baseline's fp32 model.
        dataset: `Dataset` directory; the first samples of its calibration split are measured on.
        task: Import path of the task, whose deciding metric is taken.
        samples: At most so many samples.
        allow_lambda: Whether the baseline was accepted with Lambda layers.
        log: File for what the processes print; None to let them print.

    Raises:
        CollaboptError: No layer can be pruned, the samples have no labels, the baseline's metric is not finite on them
            or zero, or a process has died.
    """
    preload(log)
    parts = _PROCESSES
    works = [
        functools.partial(_scan_part, baseline, dataset, task, samples, allow_lambda, part, parts)
        for part in range(parts)
    ]
    answers: list[dict[str, Any]] = [{}] * parts
    for number, answer in run_forked(works, parts, log):
        answers[number] = answer
    layers = {each["layer"]: each for answer in answers for each in answer["layers"]}
    order = answers[0].pop("order")
    return Scan.model_validate({**answers[0], "layers": [layers[name] for name in order]})


def _scan_part(
    baseline: Path, dataset: Path, task: str, samples: int, allow_lambda: bool, part: int, parts: int
) -> dict[str, Any]:
    """In a forked process: every `parts`-th layer."""
    from collabopt.components.engine.compression.kernels import trainable_kernels
    from collabopt.components.engine.datasets.store import StoredDataset
    from collabopt.components.engine.models.store import load_stage_model
    from collabopt.components.engine.session import make_deterministic
    from collabopt.components.engine.training.task import load_task

    make_deterministic(0)
    model = load_stage_model(baseline, allow_lambda=allow_lambda)
    data, purpose = StoredDataset(dataset), load_task(task)
    inputs, labels = data.inputs("calibration", samples), data.labels("calibration", samples)
    if not data.labels("calibration").any():
        raise CollaboptError(
            "all labels of the calibration split are 0: there is nothing to measure by",
            where=data.spec.source,
            todo="give the split its labels; in an archive, beside x_calibration, as y_calibration",
        )

    def measure() -> float:
        outputs = model.predict(inputs, batch_size=_BATCH, verbose=0)
        return purpose.measure(outputs, labels)[purpose.metric.name]

    kernels = trainable_kernels(model)
    if not kernels:
        raise CollaboptError(
            "the model has no layer that can be pruned or clustered",
            todo="it needs Dense or convolution layers with weights that are not frozen",
        )
    reached = measure()
    if not math.isfinite(reached) or reached == 0:
        raise CollaboptError(
            f"the baseline's {purpose.metric.name} is {reached} on the calibration split: no share of that can be lost",
            todo="check model, data and task",
        )
    sign = 1 if purpose.metric.higher_is_better else -1

    def trial(layer: Any, attribute: str, value: float, changed: Any) -> dict[str, float | None]:
        variable = getattr(layer, attribute)
        before = variable.numpy()
        variable.assign(changed)
        metric = measure()
        variable.assign(before)
        if not math.isfinite(metric):
            return {"value": value, "metric": None, "drop": None}
        return {"value": value, "metric": metric, "drop": sign * (reached - metric) / abs(reached)}

    total = sum(kernel.size for kernel in kernels.values())
    return {
        "metric": purpose.metric.name,
        "baseline": reached,
        "samples": len(labels),
        "calibration_samples": len(data.labels("calibration")),
        "order": list(kernels),
        "layers": [
            {
                "layer": name,
                "weights": int(kernels[name].size),
                "share": kernels[name].size / total,
                **_trials(model.get_layer(name), kernels[name], trial),
            }
            for name in list(kernels)[part::parts]
        ],
    }


def _trials(layer: Any, kernel: Any, trial: Any) -> dict[str, Sequence[Any]]:
    from collabopt.components.engine.compression.kernels import KERNEL_ATTRIBUTES
    from collabopt.components.engine.compression.palette import quantize_to_palette
    from collabopt.components.engine.compression.pruning import mask_of_largest

    attribute = KERNEL_ATTRIBUTES[type(layer).__name__]

    def clustered(clusters: int) -> Any:
        return quantize_to_palette(kernel.reshape(-1), clusters, "kmeans++", 0).reshape(kernel.shape)

    return {
        "pruned": [trial(layer, attribute, value, kernel * mask_of_largest(kernel, value)) for value in SPARSITIES],
        "clustered": [trial(layer, attribute, value, clustered(value)) for value in CLUSTERS if kernel.size > value],
    }
