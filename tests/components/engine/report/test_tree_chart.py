import xml.etree.ElementTree as ElementTree

import pytest

from collabopt.components.engine.report.tree import grown_tree
from collabopt.components.engine.report.tree_chart import narrow_tree_chart, tree_chart


@pytest.fixture
def nodes(make_case):
    case = make_case("goals:\n- {figure: metric, max_drop: 0.01}\n", broken=["pqat"])
    return case, grown_tree(case.decision, case.leaves)


def test_the_tree_is_what_the_lineages_say(nodes):
    case, tree = nodes
    assert [(node.name, node.depth) for node in tree] == [
        ("baseline", 0),
        ("ptq", 1),
        ("qat", 1),
        ("pruned", 1),
        ("pruned_ptq", 2),
        ("pqat", 2),
        ("pruned_clustered", 2),
        ("pruned_clustered_ptq", 3),
        ("pcqat", 3),
        ("clustered", 1),
        ("clustered_ptq", 2),
        ("cqat", 2),
    ]
    known = {node.name: node for node in tree}
    assert known["baseline"].metric == case.baseline.metric.baseline
    assert known["pruned_clustered"].metric is not None and not known["pruned_clustered"].is_leaf
    assert {node.name for node in tree if node.collaborative} == {
        "pqat",
        "pruned_clustered",
        "pruned_clustered_ptq",
        "pcqat",
        "cqat",
    }
    assert known["pqat"].state == "broken"
    assert known[case.decision.winner].state == "winner"
    assert known["clustered_ptq"].state == "refused"
    assert known["ptq"].packed_bytes == case.leaves["ptq"].deployed.packed_bytes


@pytest.mark.parametrize("draw", [tree_chart, narrow_tree_chart])
def test_every_stage_lies_in_the_picture_and_none_on_another(nodes, draw):
    _, tree = nodes
    picture = ElementTree.fromstring(draw(tree, "accuracy"))
    width, height = (float(each) for each in picture.get("viewBox").split()[2:])
    names = [text.text for text in picture.iter("text") if text.get("class") == "name"]
    assert sorted(names) == sorted(node.name for node in tree)
    boxes = [_box(shape) for group in picture.iter("g") for shape in group if "node" in shape.get("class", "")]
    assert len(boxes) == len(tree)
    for left, top, right, bottom in boxes:
        assert left >= 0 and top >= 0 and right <= width and bottom <= height
    for number, one in enumerate(boxes):
        for other in boxes[number + 1 :]:
            apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
            assert apart, (one, other)
    marked = {text.text for text in picture.iter("text") if "mark" in text.get("class", "")}
    assert marked == {"★ ships", "✕ broken", "refused", "qualifies"}


@pytest.mark.parametrize("draw", [tree_chart, narrow_tree_chart])
def test_edges_are_as_many_as_children_and_dashed_where_collaborative(nodes, draw):
    _, tree = nodes
    picture = ElementTree.fromstring(draw(tree, "accuracy"))
    edges = [path.get("class").split() for path in picture.iter("path")]
    assert len(edges) == len(tree) - 1
    assert sum("collaborative" in edge for edge in edges) == 5


def test_a_long_name_is_cut_to_its_box(make_case):
    name = "m" * 200
    case = make_case(leaves=["ptq"], rename={"ptq": name})
    picture = ElementTree.fromstring(tree_chart(grown_tree(case.decision, case.leaves), "accuracy"))
    shown = next(text.text for text in picture.iter("text") if text.text.startswith("mm"))
    assert shown.endswith("…") and len(shown) < 40
    assert name in picture.find("desc").text


def _box(shape):
    if shape.tag == "circle":
        x, y, radius = (float(shape.get(name)) for name in ("cx", "cy", "r"))
        return x - radius, y - radius, x + radius, y + radius
    x, y, width, height = (float(shape.get(name)) for name in ("x", "y", "width", "height"))
    return x, y, x + width, y + height
