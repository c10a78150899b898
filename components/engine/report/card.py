"""The model card of a leaf: everything in one dictionary, and the same as Markdown."""

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from collabopt.components.engine.gate.decision import Decision, Verdict
from collabopt.components.engine.gate.update import update_in_words
from collabopt.components.engine.policy.figures import DELTA, UPDATE
from collabopt.components.engine.records import Footprint, LeafReport
from collabopt.components.engine.report.card_text import as_markdown
from collabopt.components.engine.report.interface import interface_of
from collabopt.components.engine.report.policy_words import priority_in_words
from collabopt.components.engine.techniques import CLUSTERED, QUANTIZED, SPARSE, properties_after

_TAGS = {SPARSE: "pruned", CLUSTERED: "clustered", QUANTIZED: "quantized"}
_COMPARED = ("tflite_bytes", "gzip_bytes", "packed_bytes", UPDATE, "npu_latency_ms")
_SIZES = ("tflite_bytes", "gzip_bytes", "zip_bytes", "packed_bytes")


def model_card(decision: Decision, leaf: LeafReport, tflite: bytes, *, name: str = "") -> dict[str, Any]:
    """Collects what people must know of a leaf before they use it.

    Args:
        decision: What the gate decided, with a verdict on the leaf.
        leaf: Its report.
        tflite: Its file, for inputs and outputs.
        name: Name under which it is registered; the leaf's own by default.

    Returns:
        A dictionary of JSON types; what is not known or not finite is None.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    verdict = next((each for each in decision.verdicts if each.leaf == leaf.name), None)
    deployed = leaf.deployed
    card = {
        "name": name or leaf.name,
        "leaf": leaf.name,
        "sha256": deployed.sha256,
        "tags": _tags(leaf),
        "task": leaf.task,
        "lineage": [step.model_dump(mode="json") for step in leaf.lineage],
        "pathway": leaf.pathway,
        "data": {"digest": leaf.dataset_digest, "split": "test"},
        "metric": _metric(decision, leaf),
        "metrics": dict(leaf.metrics),
        "decision": {
            "ships": decision.winner == leaf.name,
            "outcome": decision.outcome,
            "qualified": verdict.qualified if verdict else None,
            "reason": verdict.reason if verdict else None,
            "goals": _goals(verdict),
            "priority": priority_in_words(decision),
        },
        "comparison": [{**_compared(each), "ships": each.leaf == decision.winner} for each in decision.verdicts],
        "interface": asdict(interface_of(tflite)),
        "sizes": {each: getattr(deployed, each) for each in _SIZES},
        "update": _update(decision, verdict),
        "weights": {
            "tensors": len(deployed.weights),
            "bytes": deployed.weight_bytes,
            "packed_bytes": deployed.weight_packed_bytes,
            "entropy_bytes": deployed.weight_entropy_bytes,
        },
        "operators": dict(deployed.operators),
        "float_operators": dict(deployed.float_reasons),
        "contract": {
            "holds": leaf.contract.holds,
            "layers": list(leaf.contract.layers),
            "broken": [each.model_dump(mode="json") for each in leaf.contract.broken],
        },
        "footprint": None if leaf.footprint is None else leaf.footprint.model_dump(mode="json"),
        "proof": None if leaf.proof is None else leaf.proof.model_dump(mode="json"),
        "reproducibility": {
            "seeds": {step.stage: step.settings["seed"] for step in leaf.lineage if "seed" in step.settings},
            "versions": dict(leaf.versions),
            "mlflow": dict(leaf.mlflow),
        },
        "limits": _limits(leaf),
    }
    return _json_types(card)


def card_markdown(card: Mapping[str, Any]) -> str:
    """Writes a card as Markdown, with the front matter that Hugging Face reads.

    Args:
        card: What `model_card` returns, as it is or read back from JSON.
    """
    return as_markdown(card)


def _tags(leaf: LeafReport) -> list[str]:
    properties = properties_after(step.technique for step in leaf.lineage)
    won = [tag for name, tag in _TAGS.items() if name in properties]
    return ["tflite", "litert", leaf.deployed.input_dtype or "int8", *won, f"{leaf.pathway}-pathway"]


def _metric(decision: Decision, leaf: LeafReport) -> dict[str, Any]:
    known = decision.baseline
    value = leaf.metrics.get(known.metric, math.nan)
    return {
        "name": known.metric,
        "higher_is_better": known.higher_is_better,
        "value": value,
        "baseline": known.value,
        "drop": leaf.metric.drop(value),
        "interval": None if leaf.interval is None else leaf.interval.model_dump(mode="json"),
    }


def _goals(verdict: Verdict | None) -> list[dict[str, Any]]:
    judged = verdict.goals if verdict else ()
    return [{"goal": each.goal, "met": each.met, "reason": each.reason} for each in judged]


def _update(decision: Decision, verdict: Verdict | None) -> dict[str, Any]:
    """What a device that runs the champion downloads to get the leaf."""
    figures = verdict.figures if verdict else {}
    return {
        "bytes": figures.get(UPDATE),
        "delta_bytes": figures.get(DELTA),
        "from_sha256": decision.champion.sha256 if decision.champion else None,
        "in_words": update_in_words(decision, verdict) if verdict else None,
    }


def _compared(verdict: Verdict) -> dict[str, Any]:
    return {
        "leaf": verdict.leaf,
        "pathway": verdict.pathway,
        "metric": verdict.metric,
        "drop": verdict.drop,
        **{name: verdict.figures.get(name) for name in _COMPARED},
        "trained": verdict.trained,
        "qualified": verdict.qualified,
        "on_front": verdict.on_front,
        "reason": verdict.reason,
    }


def _limits(leaf: LeafReport) -> list[str]:
    """What the figures do not say."""
    said = ["All figures are of this file on the test split of this data set; on other data it may do worse."]
    if leaf.interval is None:
        said.append("How far the metric may be off because the test split is a sample was not measured.")
    said += _footprint_limits(leaf.footprint)
    if not leaf.contract.layers:
        said.append("Nothing was pruned or clustered on its way, so there was no contract to check.")
    said += [
        f"Left in float: {operator}, because {reason}." for operator, reason in leaf.deployed.float_reasons.items()
    ]
    return said


def _footprint_limits(footprint: Footprint | None) -> list[str]:
    if footprint is None:
        return ["What it costs on an NPU or on a host was not measured."]
    said = [
        "Activation memory is computed from the file, without the runtime's own needs, alignment and scratch buffers.",
        "Latency on the host is that of one machine; it does not tell leaves apart.",
    ]
    npu = footprint.npu
    if not npu.supported:
        return [f"It does not run on {npu.accelerator}: {npu.reason or 'not supported'}.", *said]
    estimated = f"Figures for {npu.accelerator} are estimates of {npu.tool}, a compiler, not measurements of silicon"
    left = f"; {npu.cpu_operators} operators run on the CPU, whose time is not in them" if npu.cpu_operators else ""
    return [f"{estimated}{left}.", *said]


def _json_types(value: Any) -> Any:
    """The value with lists for tuples, and None for what is not finite."""
    if isinstance(value, Mapping):
        return {str(name): _json_types(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_json_types(each) for each in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
