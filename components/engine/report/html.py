"""The report of a decision: one HTML page that needs nothing but a browser."""

from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from collabopt.components.engine.deployed.weights import read_weights
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.gate.update import update_in_words
from collabopt.components.engine.prescreen.compare import COMPARED
from collabopt.components.engine.prescreen.judgement import PREDICTION_ERROR
from collabopt.components.engine.prescreen.records import Prescreen
from collabopt.components.engine.records import LeafReport, SkippedRecord, StageRecord
from collabopt.components.engine.report import formats
from collabopt.components.engine.report.compressible import compressible
from collabopt.components.engine.report.layer_plan_rows import layer_plans
from collabopt.components.engine.report.leaf_rows import LeafRow, leaf_rows
from collabopt.components.engine.report.lineage import lineage_rows, version_rows
from collabopt.components.engine.report.pareto_chart import Limit, ParetoPoint, pareto_chart
from collabopt.components.engine.report.policy_words import (
    front_figures,
    goal_rows,
    none_qualifies_in_words,
    priority_in_words,
)
from collabopt.components.engine.report.predictions import prediction_rows
from collabopt.components.engine.report.tree import grown_tree
from collabopt.components.engine.report.tree_chart import narrow_tree_chart, tree_chart
from collabopt.components.engine.report.weight_histograms import describe, histogram_of, weight_histogram

_TEMPLATE = "report.html.j2"
_STYLE = "report.css"
_FILTERS = ("number", "signed", "count", "share", "bits", "milliseconds", "per_second", "shape", "setting", "breakable")


def render_report(
    decision: Decision,
    baseline: StageRecord,
    leaves: Mapping[str, LeafReport],
    tflites: Mapping[str, bytes],
    untrained: Mapping[str, SkippedRecord] = MappingProxyType({}),
    predicted: Prescreen | None = None,
) -> str:
    """Renders the report; the same arguments give the same bytes.

    Args:
        decision: What the gate decided.
        baseline: Record of the fp32 baseline.
        leaves: Leaf -> its report, for every leaf of the decision that was trained.
        tflites: Leaf -> its file. A leaf whose file is missing has no histograms.
        untrained: Leaf -> its record, for those that were not.
        predicted: What was predicted before training, compared with what was trained; None where nothing was.

    Returns:
        An HTML page in UTF-8 that loads nothing and runs no script.

    Raises:
        CollaboptError: A file is not a TFLite model, or a damaged one.
    """
    environment = Environment(
        loader=PackageLoader("collabopt.components.engine", "report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(formats, name) for name in _FILTERS})
    style = environment.loader.get_source(environment, _STYLE)[0] if environment.loader else ""
    template = environment.get_template(_TEMPLATE)
    return template.render(style=Markup(style), **_view(decision, baseline, leaves, tflites, untrained, predicted))


def _view(
    decision: Decision,
    baseline: StageRecord,
    leaves: Mapping[str, LeafReport],
    tflites: Mapping[str, bytes],
    untrained: Mapping[str, SkippedRecord],
    predicted: Prescreen | None,
) -> dict[str, Any]:
    """What the template shows."""
    rows = leaf_rows(decision, leaves)
    nodes = grown_tree(decision, leaves, untrained)
    metric = decision.baseline.metric
    winner = next((row for row in rows if row.state == "winner"), None)
    return {
        "decision": decision,
        "baseline": baseline,
        "metric": metric,
        "rows": rows,
        "untrained": [verdict for verdict in decision.verdicts if not verdict.trained],
        "predictions": prediction_rows(predicted, decision) if predicted else [],
        "compared_figures": COMPARED,
        "prediction_error": PREDICTION_ERROR,
        "winner": winner,
        "goals": goal_rows(decision),
        "priority": priority_in_words(decision),
        "front_figures": front_figures(decision),
        "winners_update": update_in_words(decision, winner.verdict) if winner else "",
        "npu_tools": sorted({f"{row.npu.accelerator}, {row.npu.tool}" for row in rows if row.npu}),
        "none_qualifies": none_qualifies_in_words(decision),
        "trees": [Markup(tree_chart(nodes, metric)), Markup(narrow_tree_chart(nodes, metric))] if nodes else [],
        "paretos": list(_paretos(decision, rows)),
        "not_in_chart": [row.name for row in rows if row.name not in {point.name for point in _points(rows)}],
        "leaf_histograms": list(_leaf_histograms(rows, tflites)),
        "layer_histograms": list(_layer_histograms(winner, tflites)),
        "layer_plans": layer_plans(rows),
        "lineage": lineage_rows({**leaves, **untrained}, nodes),
        "versions": version_rows(baseline, leaves),
        "NOT_MEASURED": formats.NOT_MEASURED,
    }


def _paretos(decision: Decision, rows: list[LeafRow]) -> Iterator[Markup]:
    """The chart for wide pages and for narrow ones."""
    points = _points(rows)
    if not points:
        return
    known = decision.baseline
    limits, size_limits = _limits(decision, known.metric), _limits(decision, "packed_bytes")
    if known.value is not None:
        limits.insert(0, Limit(known.value, f"fp32 baseline {formats.number(known.value)}", "baseline"))
    for identifier, width, height in (("pareto", 880, 430), ("pareto-narrow", 352, 400)):
        chart = pareto_chart(
            points, known.metric, known.higher_is_better, limits, size_limits, identifier, width, height
        )
        yield Markup(chart)


def _points(rows: list[LeafRow]) -> list[ParetoPoint]:
    return [
        ParetoPoint(
            name=row.name,
            packed_bytes=row.report.deployed.packed_bytes,
            metric=row.verdict.metric,
            latency_ms=row.npu.latency_ms if row.npu else None,
            state=row.state,
        )
        for row in rows
        if row.verdict.metric is not None and row.report.deployed.packed_bytes
    ]


def _limits(decision: Decision, figure: str) -> list[Limit]:
    """Where the policy draws a line on a figure; goals are the same for every leaf."""
    judged = next((verdict.goals for verdict in decision.verdicts if verdict.goals), ())
    return [Limit(goal.bound, goal.goal) for goal in judged if goal.figure == figure and goal.bound is not None]


def _leaf_histograms(rows: list[LeafRow], tflites: Mapping[str, bytes]) -> Iterator[tuple[LeafRow, Markup, str, int]]:
    """Leaf, picture, figures in words, tensors that are not drawn."""
    for number, row in enumerate(rows):
        if row.name not in tflites:
            continue
        histogram = histogram_of(compressible(read_weights(tflites[row.name])))
        picture = weight_histogram(histogram, row.name, f"leaf-weights-{number}")
        yield row, Markup(picture), describe(histogram), histogram.left_out


def _layer_histograms(winner: LeafRow | None, tflites: Mapping[str, bytes]) -> Iterator[tuple[str, str, Markup, str]]:
    """Layer, operator, picture, figures in words, for every tensor of the winner."""
    if winner is None or winner.name not in tflites:
        return
    described = {tensor.name: tensor.layer or tensor.name for tensor in winner.report.deployed.weights}
    for number, tensor in enumerate(read_weights(tflites[winner.name])):
        layer = described.get(tensor.name, tensor.name)
        histogram = histogram_of([tensor])
        picture = weight_histogram(histogram, layer, f"layer-weights-{number}", width=220, height=96)
        yield layer, tensor.op.lower(), Markup(picture), describe(histogram)
