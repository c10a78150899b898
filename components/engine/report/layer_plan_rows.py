"""Settings of single layers, where a leaf's ancestors had some: what was asked, and what the file holds."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from collabopt.components.engine.layer_patterns import EXCLUDE, ranked_patterns
from collabopt.components.engine.records import LeafReport
from collabopt.components.engine.report.leaf_rows import LeafRow


@dataclass(frozen=True)
class LayerPlanRow:
    """One layer of one leaf.

    Attributes:
        layer: Its name.
        asked_sparsity: What it was to be pruned to; 0 where it was left dense, None where nothing was pruned.
        sparsity: Share of zeros in its tensor in the file.
        asked_clusters: How many values it was to keep; 0 where it was excluded, None where nothing was clustered.
        distinct: Distinct values in its tensor, or the most on an output channel where palettes are per channel.
        own: Whether either is the layer's own setting.
    """

    layer: str
    asked_sparsity: float | None
    sparsity: float
    asked_clusters: int | None
    distinct: int
    own: bool


def layer_plans(rows: list[LeafRow]) -> list[tuple[LeafRow, list[LayerPlanRow]]]:
    """Leaf -> its layers in the order of the file, for leaves that some layer's own settings led to."""
    return [(row, _layers(row)) for row in rows if any(step.settings.get("layers") for step in row.report.lineage)]


def _layers(row: LeafRow) -> list[LayerPlanRow]:
    per_channel = row.report.claims.palette == "channel"
    shown = []
    for tensor in row.compressible:
        sparsity, own_sparsity = _asked(row.report, tensor.layer, "target_sparsity")
        clusters, own_clusters = _asked(row.report, tensor.layer, "number_of_clusters")
        shown.append(
            LayerPlanRow(
                layer=tensor.layer or tensor.name,
                asked_sparsity=sparsity,
                sparsity=tensor.zero_fraction,
                asked_clusters=None if clusters is None else int(clusters),
                distinct=tensor.max_distinct_values_per_channel if per_channel else tensor.distinct_values,
                own=own_sparsity or own_clusters,
            )
        )
    return shown


def _asked(report: LeafReport, layer: str, field: str) -> tuple[float | None, bool]:
    """What the ancestor that has this setting asked of a layer, and whether it did so of this layer in particular."""
    settings = next((step.settings for step in report.lineage if field in step.settings), None)
    if settings is None:
        return None, False
    patterns: Mapping[str, Any] = settings.get("layers", {})
    matching = ranked_patterns(layer, patterns)
    if not matching:
        return settings[field], False
    own = patterns[matching[0]]
    return (0 if own == EXCLUDE else own[field]), True
