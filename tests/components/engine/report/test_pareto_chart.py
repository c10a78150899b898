import math
import xml.etree.ElementTree as ElementTree
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collabopt.components.engine.report.label_places import Box, Marker, around, place_labels
from collabopt.components.engine.report.pareto_chart import Limit, ParetoPoint, front_of, pareto_chart, radius_of

NAMES = ("ptq", "qat", "pruned_ptq", "pqat", "pruned_clustered_ptq", "pcqat", "clustered_ptq", "cqat")


def points(sizes, metrics, **more):
    return [ParetoPoint(name, size, metric, **more) for name, size, metric in zip(NAMES, sizes, metrics, strict=False)]


CLOSE = {
    "the same": points([9500] * 8, [0.9889] * 8),
    "two piles": points([9501, 9516] * 4, [0.9889, 0.9861] * 4),
    "a line": points(range(9500, 9508), [0.98] * 8),
    "a column": points([9500] * 8, [0.98 + 0.0001 * number for number in range(8)]),
}


@pytest.mark.parametrize("width", [880, 352])
@pytest.mark.parametrize("near", CLOSE)
def test_labels_of_points_near_each_other_do_not_overlap(near, width):
    chart = pareto_chart(
        CLOSE[near], "accuracy", True, [Limit(0.9889, "fp32 baseline", "baseline"), Limit(0.9689, "policy: limit")],
        width=width, height=430,
    )  # fmt: skip
    picture = ElementTree.fromstring(chart)
    labels = [text for text in picture.iter("text") if text.get("class").split()[0] in ("label", "limit-label")]
    assert sorted(each.text for each in labels) == sorted([*NAMES, "fp32 baseline", "policy: limit"])
    boxes = [_box(each) for each in labels]
    for one, other in combinations(range(len(boxes)), 2):
        assert not boxes[one].overlaps(boxes[other]), (labels[one].text, labels[other].text)
    assert all(_is_within(box, Box(0, 0, width, 430)) for box in boxes)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.floats(0, 600), st.floats(0, 300), st.floats(3, 13)), min_size=1, max_size=10))
def test_labels_cover_neither_labels_nor_markers(places):
    area = Box(0, 0, 600, 300)
    markers = [Marker(x, y, radius, 90, 15) for x, y, radius in places]
    placed = place_labels(markers, area)
    assert None not in placed
    for one, other in combinations(placed, 2):
        assert not one.overlaps(other)
    for box in placed:
        assert _is_within(box, area)
        assert not any(box.overlaps(around(marker)) for marker in markers)


def test_a_full_area_leaves_labels_out():
    placed = place_labels([Marker(10, 10, 3, 90, 15)] * 5, Box(0, 0, 100, 40))
    assert placed.count(None) == 4


@pytest.mark.parametrize(("higher", "expected"), [(True, ["b", "c"]), (False, ["b", "a"])])
def test_the_front_follows_the_direction_of_the_metric(higher, expected):
    given_points = [
        ParetoPoint("a", 300, 0.1),
        ParetoPoint("b", 100, 0.5),
        ParetoPoint("c", 200, 0.9),
        ParetoPoint("d", 50, 0.99 if higher else 0.01, state="broken"),
        ParetoPoint("e", 60, 0.99 if higher else 0.01, state="refused"),
    ]
    assert [point.name for point in front_of(given_points, higher)] == expected


def test_without_a_qualified_leaf_the_front_is_that_of_the_refused():
    refused = [ParetoPoint("a", 300, 0.1, state="refused"), ParetoPoint("b", 100, 0.5, state="broken")]
    assert [point.name for point in front_of(refused, True)] == ["a"]


def test_the_area_of_a_bubble_is_the_latency():
    assert math.pi * radius_of(2.0, 8.0) ** 2 == pytest.approx(math.pi * radius_of(8.0, 8.0) ** 2 / 4)


def test_bubbles_that_know_no_latency_are_hollow_and_refused_ones_crossed():
    chart = pareto_chart(
        [
            ParetoPoint("a", 100, 0.5, latency_ms=2.0, state="winner"),
            ParetoPoint("b", 200, 0.6),
            ParetoPoint("c", 300, 0.4, latency_ms=1.0, state="broken"),
        ],
        "accuracy",
        True,
    )
    circles = [circle.get("class").split() for circle in ElementTree.fromstring(chart).iter("circle")]
    assert [("hollow" in circle, "broken" in circle) for circle in circles if circle[0] == "bubble"].count(
        (True, False)
    ) == 1
    assert chart.count('class="cross broken"') == 1
    assert chart.count('class="ring"') == 1


@pytest.mark.parametrize(("higher", "words"), [(True, "higher is better"), (False, "lower is better")])
def test_the_axis_ascends_and_says_which_way_is_better(higher, words):
    chart = pareto_chart([ParetoPoint("a", 1, 0.1), ParetoPoint("b", 2, 0.9)], "mae", higher)
    picture = ElementTree.fromstring(chart)
    bubbles = [group for group in picture.iter("g") if group.find("circle") is not None]
    height = {group.find("title").text[0]: float(group.find("circle").get("cy")) for group in bubbles}
    assert height["a"] > height["b"]
    assert any(text.text == f"mae ({words})" for text in picture.iter("text"))


def test_the_lines_of_the_policy_are_drawn_where_they_are():
    chart = pareto_chart(points([100, 200], [0.9, 0.8]), "accuracy", True, [Limit(0.85, "limit")], [Limit(150, "size")])
    picture = ElementTree.fromstring(chart)
    cy = [float(circle.get("cy")) for circle in picture.iter("circle")]
    cx = [float(circle.get("cx")) for circle in picture.iter("circle")]
    level, upright = [line for line in picture.iter("line") if line.get("class") == "limit goal"]
    assert float(level.get("y1")) == pytest.approx(sum(cy) / 2, abs=0.02)
    assert float(upright.get("x1")) == pytest.approx(sum(cx) / 2, abs=0.02)


def _is_within(box, area):
    across = area.left <= box.left and box.left + box.width <= area.left + area.width
    return across and area.top <= box.top and box.top + box.height <= area.top + area.height


def _box(text):
    size = 12 if text.get("class").startswith("label") else 11
    width, x, y = len(text.text) * size * 0.55, float(text.get("x")), float(text.get("y"))
    return Box(x - width if text.get("text-anchor") == "end" else x, y - 9, width, 11)
