"""The figures of a leaf that a policy can name, and which way each of them is better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from collabopt.components.engine.records import LeafReport, MetricOfRecord, StageRecord


@dataclass(frozen=True)
class Figure:
    """A figure that every leaf has.

    Attributes:
        what: What it is.
        unit: Its unit; "" for none.
        higher_is_better: Its direction.
        tells_apart: Whether it can rank leaves. Host latency cannot: leaves differ in weights, not in work, and what
            differs is noise.
    """

    what: str
    unit: str
    higher_is_better: bool = False
    tells_apart: bool = True


FIGURES: dict[str, Figure] = {
    "tflite_bytes": Figure("size of model.tflite", "B"),
    "gzip_bytes": Figure("size after gzip -9", "B"),
    "zip_bytes": Figure("size after ZIP deflate", "B"),
    "packed_bytes": Figure("size of model.tflite.gz, what goes over the air", "B"),
    "weight_entropy_bytes": Figure("weights at their entropy, the bound of every code of single weights", "B"),
    "sparsity": Figure("share of zero weights", "", higher_is_better=True),
    "float_operators": Figure("operators left in float", ""),
    "activation_bytes": Figure("most bytes of activations alive at once", "B"),
    "npu_latency_ms": Figure("one inference on the NPU, as Vela estimates it", "ms"),
    "npu_sram_bytes": Figure("SRAM on the NPU", "B"),
    "npu_flash_bytes": Figure("off-chip flash on the NPU", "B"),
    "npu_weight_bytes": Figure("weights as the NPU reads them", "B"),
    "npu_macs": Figure("multiply-accumulates on the NPU", ""),
    "host_latency_ms": Figure("one inference by LiteRT on the stage's machine, median", "ms", tells_apart=False),
}


def figures_of(report: LeafReport) -> dict[str, float]:
    """Everything finite that a leaf's report says in numbers: the task's metrics, and `FIGURES`.

    What is not known or not finite is left out, never zero.
    """
    deployed = report.deployed
    figures: dict[str, float | None] = dict(report.metrics)
    for name in ("tflite_bytes", "gzip_bytes", "zip_bytes", "packed_bytes", "weight_entropy_bytes"):
        figures[name] = getattr(deployed, name)
    figures["float_operators"] = len(deployed.float_operators)
    if report.footprint is not None:
        npu = report.footprint.npu
        figures["activation_bytes"] = report.footprint.activation_bytes
        for name in ("latency_ms", "sram_bytes", "flash_bytes", "weight_bytes", "macs"):
            figures[f"npu_{name}"] = getattr(npu, name)
        figures["host_latency_ms"] = next((host.median_ms for host in report.footprint.host if host.supported), None)
    return _finite(figures)


def baseline_figures(record: StageRecord) -> dict[str, float]:
    """The figures of the fp32 baseline: the task's metrics and the sizes of its float `.tflite`."""
    return _finite(record.metrics)


def higher_is_better(name: str, metric: MetricOfRecord) -> bool | None:
    """Direction of a figure; None where it is not known."""
    if name == metric.name:
        return metric.higher_is_better
    return FIGURES[name].higher_is_better if name in FIGURES else None


def _finite(figures: Mapping[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}
