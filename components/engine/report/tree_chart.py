"""The tree as a picture, in two layouts: branches to the right for wide pages, an indented list for narrow ones."""

from collections.abc import Sequence
from html import escape

from collabopt.components.engine.report.formats import count, number
from collabopt.components.engine.report.svg import element, figure, fitted, text
from collabopt.components.engine.report.tree import TreeNode

_ROW = 56
_BOX = 44
_GAP = 40
_BASELINE_WIDTH, _INTERIOR_WIDTH, _LEAF_WIDTH = 118, 168, 318
_BAR = 84
_INDENT = 18
_NARROW_ROW = 46
_NARROW_WIDTH = 352
_UNTRAINED = "untrained"
_MARKS = {
    "winner": "★ ships",
    "broken": "✕ broken",
    "refused": "refused",
    "qualified": "qualifies",
    _UNTRAINED: "not trained",
}

Place = tuple[float, float, float]


def tree_chart(nodes: Sequence[TreeNode], metric: str, identifier: str = "tree") -> str:
    """Branches to the right, leaves in a column with their figures.

    Args:
        nodes: The tree, depth first, the baseline first.
        metric: Name of the deciding metric.
        identifier: Unique on the page.
    """
    places, width, height = _wide_layout(nodes)
    largest = max((node.packed_bytes or 0 for node in nodes), default=0)
    edges = [_branch(node, places) for node in nodes if node.parent]
    boxes = [_box(node, places[node.path], largest) for node in nodes]
    return figure(identifier, "The tree", _description(nodes, metric), width, height, *edges, *boxes)


def narrow_tree_chart(nodes: Sequence[TreeNode], metric: str, identifier: str = "tree-narrow") -> str:
    """One stage below the other, indented; for narrow pages. Arguments as for `tree_chart`."""
    rows = {node.path: number for number, node in enumerate(nodes)}
    edges = [_elbow(node, rows) for node in nodes if node.parent]
    entries = [_entry(node, rows[node.path]) for node in nodes]
    height = len(nodes) * _NARROW_ROW + 4
    return figure(identifier, "The tree", _description(nodes, metric), _NARROW_WIDTH, height, *edges, *entries)


def _wide_layout(nodes: Sequence[TreeNode]) -> tuple[dict[tuple[str, ...], Place], float, float]:
    """Left edge, middle and width of every box, and the size of the picture."""
    leaves = [node for node in nodes if node.is_leaf]
    deepest = max((node.depth for node in nodes if not node.is_leaf), default=0)
    left_of_leaves = 1 + _BASELINE_WIDTH + _GAP + deepest * (_INTERIOR_WIDTH + _GAP)
    places: dict[tuple[str, ...], Place] = {
        leaf.path: (left_of_leaves, (row + 0.5) * _ROW, _LEAF_WIDTH) for row, leaf in enumerate(leaves)
    }
    for node in reversed([node for node in nodes if not node.is_leaf]):
        below = [places[child.path][1] for child in nodes if child.parent == node.path]
        left = 1 if node.depth == 0 else 1 + _BASELINE_WIDTH + _GAP + (node.depth - 1) * (_INTERIOR_WIDTH + _GAP)
        width = _BASELINE_WIDTH if node.depth == 0 else _INTERIOR_WIDTH
        places[node.path] = (left, (min(below) + max(below)) / 2, width)
    return places, left_of_leaves + _LEAF_WIDTH + 1, max(len(leaves), 1) * _ROW


def _branch(node: TreeNode, places: dict[tuple[str, ...], Place]) -> str:
    left, middle, width = places[node.parent]
    start, end = left + width, places[node.path][0]
    target = places[node.path][1]
    bend = start + _GAP
    curve = f"M{start:g} {middle:g}C{start + _GAP / 2:g} {middle:g} {bend - _GAP / 2:g} {target:g} {bend:g} {target:g}"
    return element("path", d=f"{curve}H{end:g}", class_=_classes("edge", node))


def _box(node: TreeNode, place: Place, largest: int) -> str:
    left, middle, width = place
    top = middle - _BOX / 2
    parts = [
        element(
            "rect",
            x=left,
            y=top,
            width=width,
            height=_BOX,
            rx=6 if node.is_leaf else _BOX / 2,
            class_=_classes("node", node),
        )
    ]
    inner = left + (12 if node.is_leaf else 18)
    room = width - 2 * (inner - left)
    if node.is_leaf:
        bar_left = left + width - _BAR - 12
        parts += [
            text(fitted(node.name, room - _BAR - 8, 13), inner, middle - 4, "name"),
            text(_MARKS[node.state], inner, middle + 14, f"mark {node.state}"),
            *_figures(node, bar_left, middle, largest),
        ]
    else:
        parts += [
            text(fitted(node.name, room, 13), inner, middle - 4, "name"),
            text(fitted(_reached(node), room, 12), inner, middle + 14, "figure"),
        ]
    return element("g", _tooltip(node), *parts)


def _figures(node: TreeNode, bar_left: float, middle: float, largest: int) -> list[str]:
    if node.state == _UNTRAINED:
        return []
    return [
        text(number(node.metric), bar_left - 14, middle + 14, "figure", text_anchor="end"),
        text(f"{count(node.packed_bytes)} B", bar_left + _BAR, middle - 4, "figure", text_anchor="end"),
        *_bar(node, bar_left, middle + 6, largest),
    ]


def _reached(node: TreeNode) -> str:
    return _MARKS[_UNTRAINED] if node.state == _UNTRAINED else number(node.metric)


def _bar(node: TreeNode, left: float, top: float, largest: int) -> list[str]:
    if not node.packed_bytes or not largest:
        return []
    length = max(_BAR * node.packed_bytes / largest, 1.0)
    return [
        element("rect", x=left, y=top, width=_BAR, height=8, rx=2, class_="track"),
        element("rect", x=left, y=top, width=length, height=8, rx=2, class_=f"bar {node.state}"),
    ]


def _elbow(node: TreeNode, rows: dict[tuple[str, ...], int]) -> str:
    x = 9 + (node.depth - 1) * _INDENT
    top, bottom = (rows[node.parent] + 0.5) * _NARROW_ROW, (rows[node.path] + 0.5) * _NARROW_ROW
    return element("path", d=f"M{x:g} {top + 7:g}V{bottom:g}H{x + _INDENT - 7:g}", class_=_classes("edge", node))


def _entry(node: TreeNode, row: int) -> str:
    x, middle = 9 + node.depth * _INDENT, (row + 0.5) * _NARROW_ROW
    shape = (
        element("rect", x=x - 6, y=middle - 6, width=12, height=12, rx=2, class_=_classes("node", node))
        if node.is_leaf
        else element("circle", cx=x, cy=middle, r=6, class_=_classes("node", node))
    )
    size = f" · {count(node.packed_bytes)} B" if node.is_leaf and node.state != _UNTRAINED else ""
    below = "" if node.is_leaf and node.state == _UNTRAINED else f"{_reached(node)}{size}"
    parts = [
        shape,
        text(fitted(node.name, _NARROW_WIDTH - x - 104, 13), x + 14, middle - 3, "name"),
        text(below, x + 14, middle + 14, "figure"),
    ]
    if node.is_leaf:
        parts.append(text(_MARKS[node.state], _NARROW_WIDTH - 4, middle - 3, f"mark {node.state}", text_anchor="end"))
    return element("g", _tooltip(node), *parts)


def _tooltip(node: TreeNode) -> str:
    return element("title", escape(f"{node.name}: {node.technique}"))


def _classes(kind: str, node: TreeNode) -> str:
    way = "collaborative" if node.collaborative else "standard"
    return " ".join(part for part in (kind, way, node.state) if part)


def _description(nodes: Sequence[TreeNode], metric: str) -> str:
    entries = []
    for node in nodes:
        entry = f"{node.name} ({_described(node, metric)}"
        entries.append(f"{entry}, from {node.parent[-1]})" if node.parent else f"{entry})")
    return "; ".join(entries)


def _described(node: TreeNode, metric: str) -> str:
    if node.state == _UNTRAINED:
        return _MARKS[_UNTRAINED]
    reached = f"{metric} {number(node.metric)}"
    return f"{reached}, {count(node.packed_bytes)} bytes packed, {_MARKS[node.state]}" if node.is_leaf else reached
