"""The figures of a leaf that a policy can name, and which way each of them is better."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from collabopt.components.engine.records import DeployedModel, LeafReport, MetricOfRecord, NpuEstimate, StageRecord


@dataclass(frozen=True)
class Figure:
    """A figure that every leaf has.

    Attributes:
        what: What it is.
        unit: Its unit; "" for none.
        higher_is_better: Its direction.
        tells_apart: Whether it can rank leaves. Host latency cannot: leaves differ in weights, not in work, and what
            differs is noise.
        of_update: Whether it is about the way from the champion to the leaf, so that neither baseline nor champion has
            it.
    """

    what: str
    unit: str
    higher_is_better: bool = False
    tells_apart: bool = True
    of_update: bool = False


# Known only where there is a champion.
DELTA = "delta_bytes"
UPDATE = "update_bytes"

FIGURES: dict[str, Figure] = {
    "tflite_bytes": Figure("size of model.tflite", "B"),
    "gzip_bytes": Figure("size after gzip -9", "B"),
    "zip_bytes": Figure("size after ZIP deflate", "B"),
    "packed_bytes": Figure("size of model.tflite.gz, what goes over the air", "B"),
    UPDATE: Figure("what a device that runs the champion downloads, packed file or patch", "B", of_update=True),
    DELTA: Figure("smallest patch from the champion's file", "B", of_update=True),
    "weight_entropy_bytes": Figure("weights at their entropy, the bound of every code of single weights", "B"),
    "sparsity": Figure("share of zero weights", "", higher_is_better=True),
    "float_operators": Figure("operators left in float", ""),
    "activation_bytes": Figure("most bytes of activations alive at once", "B"),
    "npu_latency_ms": Figure("one inference on the NPU, as Vela estimates it", "ms"),
    "npu_sram_bytes": Figure("SRAM on the NPU", "B"),
    "npu_flash_bytes": Figure("off-chip flash on the NPU", "B"),
    "npu_weight_bytes": Figure("weights as the NPU reads them", "B"),
    "npu_macs": Figure("multiply-accumulates on the NPU", ""),
    "npu_cpu_operators": Figure("operators that the NPU leaves to the CPU, whose time npu_latency_ms lacks", ""),
    "host_latency_ms": Figure("one inference by LiteRT on the stage's machine, median", "ms", tells_apart=False),
}

# What the names of figures on the NPU begin with.
NPU = "npu_"
# Taken from the footprint alone, which says what NPU they are for, even where a stage logs them as metrics too.
_OF_FOOTPRINT = {"activation_bytes", "host_latency_ms", *(name for name in FIGURES if name.startswith(NPU))}
_COUNTS = ("float_operators", "npu_macs", "npu_cpu_operators")


def figures_of(report: LeafReport, accelerator: str | None = None) -> dict[str, float]:
    """Everything finite that a leaf's report says in numbers: the task's metrics, and `FIGURES`.

    What is not known or not finite is left out, never zero.

    Args:
        report: What the leaf says of itself.
        accelerator: The NPU that figures are wanted for: those for any other are left out. None for the one that the
            leaf was measured on.
    """
    figures: dict[str, float | None] = {
        name: value for name, value in report.metrics.items() if name not in _OF_FOOTPRINT
    }
    figures |= file_figures(report.deployed)
    if report.footprint is not None:
        figures["activation_bytes"] = report.footprint.activation_bytes
        if accelerator in (None, report.footprint.npu.accelerator):
            figures |= npu_figures(report.footprint.npu)
        figures["host_latency_ms"] = next((host.median_ms for host in report.footprint.host if host.supported), None)
    return finite(figures)


def file_figures(deployed: DeployedModel) -> dict[str, float | None]:
    """What the bytes of a file alone say: sizes, and operators left in float; None for what is not known."""
    return {
        **{name: getattr(deployed, name) for name in ("tflite_bytes", "gzip_bytes", "zip_bytes")},
        # Both are 0 where nothing was packed or no weights were found.
        "packed_bytes": deployed.packed_bytes or None,
        "weight_entropy_bytes": deployed.weight_entropy_bytes if deployed.weights else None,
        "float_operators": len(deployed.float_operators),
    }


def update_figures(deployed: DeployedModel, delta_bytes: int | None) -> dict[str, float]:
    """What it takes to bring a file to a device that runs the champion.

    Args:
        deployed: The file.
        delta_bytes: Size of the smallest patch from the champion's file, 0 where it is that file; None without a
            champion.
    """
    known = [size for size in (deployed.packed_bytes or None, delta_bytes) if size is not None]
    return finite({DELTA: delta_bytes, UPDATE: min(known, default=None)})


def npu_figures(npu: NpuEstimate) -> dict[str, float | None]:
    """The figures on an NPU, each None where it does not run the file."""
    names = ("latency_ms", "sram_bytes", "flash_bytes", "weight_bytes", "macs")
    return {
        **{f"{NPU}{name}": getattr(npu, name) for name in names},
        "npu_cpu_operators": npu.cpu_operators if npu.supported else None,
    }


def finite(figures: Mapping[str, float | None]) -> dict[str, float]:
    """Those that are known and finite."""
    return {name: value for name, value in figures.items() if value is not None and math.isfinite(value)}


def npu_gap(report: LeafReport, accelerator: str | None = None) -> str:
    """Why `figures_of` has no figures on the NPU; "" where it has."""
    if report.footprint is None:
        return "no footprint was measured"
    npu = report.footprint.npu
    if accelerator not in (None, npu.accelerator):
        return f"the leaf was measured for {npu.accelerator}, the policy wants {accelerator}"
    return "" if npu.supported else npu.reason or "the NPU takes none of its operators"


def baseline_figures(record: StageRecord) -> dict[str, float]:
    """The figures of the fp32 baseline: the task's metrics and the sizes of its float `.tflite`."""
    return finite({**record.metrics, record.metric.name: record.metric.baseline})


def higher_is_better(name: str, metric: MetricOfRecord) -> bool | None:
    """Direction of a figure; None where it is not known."""
    if name == metric.name:
        return metric.higher_is_better
    return FIGURES[name].higher_is_better if name in FIGURES else None


def in_words(name: str, value: float) -> str:
    """A value of a figure with its unit, short enough for a sentence."""
    unit = FIGURES[name].unit if name in FIGURES else ""
    if unit == "B" or name in _COUNTS:
        return f"{value:,.0f} {unit}".rstrip()
    if unit:
        return f"{value:.4g} {unit}"
    return f"{value:.4f}" if value == 0 or 1e-3 <= abs(value) < 1e6 else f"{value:.4g}"
