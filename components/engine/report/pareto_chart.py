"""Metric against packed size, one bubble per leaf: who is smaller, who is better, and who is neither."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from itertools import pairwise

from collabopt.components.engine.report.formats import count, milliseconds, number
from collabopt.components.engine.report.label_places import Box, Marker, around, place_labels
from collabopt.components.engine.report.svg import element, figure, fitted, text, width_of

_LEFT, _RIGHT, _TOP, _BOTTOM = 58, 14, 50, 46
_LARGEST_RADIUS = 13.0
_SMALLEST_RADIUS = 2.5
_HOLLOW_RADIUS = 6.0
_LABEL_SIZE = 12
_LABEL_HEIGHT = 15
_LEADER_FROM = 7.0
_LIMIT_SIZE = 11
_LIMIT_HEIGHT = 14
_LIMIT_STEP = 12.0
# Share of the spread that is left free around the points.
_MARGIN = 0.16


@dataclass(frozen=True)
class ParetoPoint:
    """One leaf in the chart.

    Attributes:
        name: Its name.
        packed_bytes: Size of the packed file.
        metric: The deciding metric.
        latency_ms: NPU latency; None where it is not known.
        state: `winner`, `qualified`, `refused` or `broken`.
    """

    name: str
    packed_bytes: int
    metric: float
    latency_ms: float | None = None
    state: str = "qualified"


@dataclass(frozen=True)
class Limit:
    """A line that a leaf must not cross, or is compared with.

    Attributes:
        value: Where, in the axis' unit.
        label: What it is.
        kind: `goal` or `baseline`.
    """

    value: float
    label: str
    kind: str = "goal"


@dataclass(frozen=True)
class _Scale:
    low: float
    high: float
    start: float
    end: float

    def __call__(self, value: float) -> float:
        return self.start + (value - self.low) / (self.high - self.low) * (self.end - self.start)

    def ticks(self, most: int) -> list[float]:
        """Round values, at most so many."""
        raw = (self.high - self.low) / most
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= raw * (1 - 1e-9))
        first, last = math.ceil(self.low / step - 1e-9), math.floor(self.high / step + 1e-9)
        return [round(position * step, 12) for position in range(first, last + 1)]


def pareto_chart(
    points: Sequence[ParetoPoint],
    metric: str,
    higher_is_better: bool,
    limits: Sequence[Limit] = (),
    size_limits: Sequence[Limit] = (),
    identifier: str = "pareto",
    width: int = 880,
    height: int = 430,
) -> str:
    """Draws the chart.

    Args:
        points: The leaves that have both figures.
        metric: Name of the deciding metric.
        higher_is_better: Its direction.
        limits: Lines on the metric: the baseline, and what the policy accepts.
        size_limits: Lines on the packed size, in bytes.
        identifier: Unique on the page.
        width: In pixels.
        height: In pixels.
    """
    sizes = [*(point.packed_bytes for point in points), *(line.value for line in size_limits)]
    across = _scale(sizes, _LEFT, width - _RIGHT)
    upwards = _scale([*(point.metric for point in points), *(line.value for line in limits)], height - _BOTTOM, _TOP)
    front = front_of(points, higher_is_better)
    area = Box(_LEFT, _TOP, width - _LEFT - _RIGHT, height - _TOP - _BOTTOM)
    # The winner's label has the first choice; its bubble is drawn last, on top.
    ordered = sorted(points, key=lambda point: (point.state != "winner", -point.packed_bytes, point.name))
    room = area.width * 0.7
    markers = _markers(ordered, across, upwards, room)
    lines, taken = _limit_lines(limits, size_limits, across, upwards, area, [around(marker) for marker in markers])
    boxes = place_labels(markers, area, taken)
    placed = list(zip(ordered, markers, boxes, strict=True))
    return figure(
        identifier,
        f"{metric} against packed size",
        _description(points, metric, front),
        width,
        height,
        *_axes(across, upwards, area, f"{metric} ({'higher' if higher_is_better else 'lower'} is better)"),
        *lines,
        _front_line(front, across, upwards),
        *(_bubble(point, marker, "on-front" if point in front else "") for point, marker, _ in reversed(placed)),
        *(_named(point, _label(point, room), marker, box) for point, marker, box in placed if box is not None),
    )


def front_of(points: Sequence[ParetoPoint], higher_is_better: bool) -> list[ParetoPoint]:
    """Points that no other beats in size and metric, smallest first; of the qualified leaves if there are any."""
    kept = [point for point in points if point.state != "broken"]
    kept = [point for point in kept if point.state in ("winner", "qualified")] or kept
    sign = 1 if higher_is_better else -1
    front = [
        one
        for one in kept
        if not any(
            other.packed_bytes <= one.packed_bytes
            and sign * other.metric >= sign * one.metric
            and (other.packed_bytes, other.metric) != (one.packed_bytes, one.metric)
            for other in kept
        )
    ]
    return sorted(front, key=lambda point: (point.packed_bytes, point.name))


def _scale(values: Sequence[float], start: float, end: float) -> _Scale:
    low, high = min(values, default=0.0), max(values, default=1.0)
    spread = high - low or abs(high) * 0.02 or 1.0
    return _Scale(low - _MARGIN * spread, high + _MARGIN * spread, start, end)


def _axes(across: _Scale, upwards: _Scale, area: Box, label: str) -> list[str]:
    bottom, right = area.top + area.height, area.left + area.width
    parts = [text(label, 4, 14, "axis-label")]
    ticks = upwards.ticks(6)
    step = min((high - low for low, high in pairwise(ticks)), default=0.1)
    digits = min(max(0, -math.floor(math.log10(step) + 1e-9)), 6)
    for value in ticks:
        y = upwards(value)
        parts.append(element("line", x1=area.left, y1=y, x2=right, y2=y, class_="grid"))
        parts.append(text(f"{value:.{digits}f}", area.left - 8, y + 4, "tick", text_anchor="end"))
    sizes = across.ticks(max(int(area.width / 90), 2))
    for value in sizes:
        x = across(value)
        parts.append(element("line", x1=x, y1=area.top, x2=x, y2=bottom, class_="grid"))
        parts.append(text(f"{value / 1000:,.10g}", x, bottom + 18, "tick", text_anchor="middle"))
    parts.append(
        text("packed size, kB (1000 bytes; smaller is better)", right, bottom + 38, "axis-label", text_anchor="end")
    )
    return parts


def _limit_lines(
    limits: Sequence[Limit],
    size_limits: Sequence[Limit],
    across: _Scale,
    upwards: _Scale,
    area: Box,
    markers: Sequence[Box],
) -> tuple[list[str], list[Box]]:
    """The lines with their labels, and where the labels lie."""
    parts: list[str] = []
    taken: list[Box] = []
    right, bottom = area.left + area.width, area.top + area.height
    for line in limits:
        y = upwards(line.value)
        parts.append(element("line", x1=area.left, y1=y, x2=right, y2=y, class_=f"limit {line.kind}"))
        shown = fitted(line.label, area.width - 8, _LIMIT_SIZE)
        box = _free_place(y, width_of(shown, _LIMIT_SIZE), area, [*markers, *taken])
        taken.append(box)
        parts.append(text(shown, box.left, box.top + 11, f"limit-label {line.kind}"))
    above: list[Box] = []
    for line in size_limits:
        x = across(line.value)
        shown = fitted(line.label, area.width, _LIMIT_SIZE)
        width = width_of(shown, _LIMIT_SIZE)
        left = min(max(x - width / 2, area.left), right - width)
        box = Box(left, area.top - 18, width, _LIMIT_HEIGHT)
        while any(map(box.overlaps, above)):
            box = Box(left, box.top + _LIMIT_HEIGHT, width, _LIMIT_HEIGHT)
        above.append(box)
        parts.append(element("line", x1=x, y1=area.top, x2=x, y2=bottom, class_=f"limit {line.kind}"))
        parts.append(text(shown, box.left, box.top + 11, f"limit-label {line.kind}"))
    return parts, [*taken, *above]


def _free_place(y: float, width: float, area: Box, taken: Sequence[Box]) -> Box:
    """A place above or below a level line: the one furthest to the right that covers the least."""
    rightmost = area.left + area.width - width - 4
    steps = int(max(rightmost - area.left, 0) / _LIMIT_STEP) + 1
    lefts = [rightmost - _LIMIT_STEP * step for step in range(steps)]
    places = [Box(left, top, width, _LIMIT_HEIGHT) for left in lefts for top in (y - _LIMIT_HEIGHT - 1, y + 1)]
    return min(places, key=lambda box: sum(map(box.overlaps, taken)))


def _front_line(front: Sequence[ParetoPoint], across: _Scale, upwards: _Scale) -> str:
    places = [f"{across(point.packed_bytes):.2f} {upwards(point.metric):.2f}" for point in front]
    return element("path", d=f"M{'L'.join(places)}", class_="front") if len(places) > 1 else ""


def _markers(points: Sequence[ParetoPoint], across: _Scale, upwards: _Scale, room: float) -> list[Marker]:
    slowest = max((point.latency_ms or 0.0 for point in points), default=0.0)
    return [
        Marker(
            across(point.packed_bytes),
            upwards(point.metric),
            radius_of(point.latency_ms, slowest),
            width_of(_label(point, room), _LABEL_SIZE),
            _LABEL_HEIGHT,
        )
        for point in points
    ]


def radius_of(latency_ms: float | None, slowest_ms: float) -> float:
    """Radius of a bubble whose area is proportional to the latency."""
    if latency_ms is None or slowest_ms <= 0:
        return _HOLLOW_RADIUS
    return max(_LARGEST_RADIUS * math.sqrt(max(latency_ms, 0.0) / slowest_ms), _SMALLEST_RADIUS)


def _bubble(point: ParetoPoint, marker: Marker, front: str) -> str:
    hollow = "hollow" if point.latency_ms is None else ""
    classes = " ".join(part for part in ("bubble", point.state, hollow, front) if part)
    parts = [
        element("title", _tooltip(point)),
        element("circle", cx=marker.x, cy=marker.y, r=marker.radius, class_=classes),
    ]
    if point.state == "winner":
        parts.append(element("circle", cx=marker.x, cy=marker.y, r=marker.radius + 3.5, class_="ring"))
    if point.state in ("refused", "broken"):
        arm = marker.radius * 0.5
        cross = f"M{marker.x - arm:.2f} {marker.y - arm:.2f}l{2 * arm:.2f} {2 * arm:.2f}m0 {-2 * arm:.2f}"
        parts.append(element("path", d=f"{cross}l{-2 * arm:.2f} {2 * arm:.2f}", class_=f"cross {point.state}"))
    return element("g", *parts)


def _named(point: ParetoPoint, label: str, marker: Marker, box: Box) -> str:
    x, y = box.nearest(marker.x, marker.y)
    parts = []
    distance = math.hypot(x - marker.x, y - marker.y)
    if distance > marker.radius + _LEADER_FROM:
        reach = (marker.radius + 1) / distance
        start = marker.x + (x - marker.x) * reach, marker.y + (y - marker.y) * reach
        parts.append(element("line", x1=start[0], y1=start[1], x2=x, y2=y, class_="leader"))
    anchor = "end" if box.left + box.width / 2 < marker.x - box.width / 4 else "start"
    at = box.left + box.width if anchor == "end" else box.left
    parts.append(text(label, at, box.top + 11.5, f"label {point.state}", text_anchor=anchor))
    return element("g", *parts)


def _label(point: ParetoPoint, room: float) -> str:
    return fitted(f"★ {point.name}" if point.state == "winner" else point.name, room, _LABEL_SIZE)


def _tooltip(point: ParetoPoint) -> str:
    latency = (
        "NPU latency not measured" if point.latency_ms is None else f"{milliseconds(point.latency_ms)} ms on the NPU"
    )
    return escape(f"{point.name}: {number(point.metric)}, {count(point.packed_bytes)} bytes packed, {latency}")


def _description(points: Sequence[ParetoPoint], metric: str, front: Sequence[ParetoPoint]) -> str:
    entries = "; ".join(
        f"{point.name}: {metric} {number(point.metric)}, {count(point.packed_bytes)} bytes, {point.state}"
        for point in points
    )
    names = ", ".join(point.name for point in front)
    return f"{entries}. Best for its size: {names or 'none'}."
