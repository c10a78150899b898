"""Finds places for the labels of a chart, so that none covers another or a marker."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_STEP = 3.0
_CLEARANCE = 2.0


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels, y downwards."""

    left: float
    top: float
    width: float
    height: float

    def overlaps(self, other: "Box") -> bool:
        """Whether both share some area."""
        return (
            self.left < other.left + other.width
            and other.left < self.left + self.width
            and self.top < other.top + other.height
            and other.top < self.top + self.height
        )

    def nearest(self, x: float, y: float) -> tuple[float, float]:
        """The point of the box that is closest to another point."""
        return min(max(x, self.left), self.left + self.width), min(max(y, self.top), self.top + self.height)


@dataclass(frozen=True)
class Marker:
    """What a label belongs to.

    Attributes:
        x: Middle.
        y: Middle.
        radius: In pixels.
        width: Of its label.
        height: Of its label.
    """

    x: float
    y: float
    radius: float
    width: float
    height: float


def around(marker: Marker) -> Box:
    """The square that a marker takes, with a little room."""
    reach = marker.radius + _CLEARANCE
    return Box(marker.x - reach, marker.y - reach, 2 * reach, 2 * reach)


def place_labels(markers: Sequence[Marker], area: Box, taken: Sequence[Box] = ()) -> list[Box | None]:
    """Puts every label as near to its marker as there is room, first come, first served.

    Args:
        markers: Markers with the sizes of their labels.
        area: Where labels may lie.
        taken: What they must not cover besides the markers.

    Returns:
        A box for every marker; None where the area is full.
    """
    occupied = [*taken, *(around(marker) for marker in markers)]
    placed: list[Box | None] = []
    for marker in markers:
        found = _nearest_free(marker, area, occupied)
        placed.append(found)
        if found is not None:
            occupied.append(found)
    return placed


def _nearest_free(marker: Marker, area: Box, occupied: Sequence[Box]) -> Box | None:
    """The nearest place; of equally near ones that on the right, then the upper one, then the left one."""
    lefts, tops = _candidates(marker, area)
    free = (lefts >= area.left) & (lefts + marker.width <= area.left + area.width)
    free &= (tops >= area.top) & (tops + marker.height <= area.top + area.height)
    for box in occupied:
        beside = (lefts >= box.left + box.width) | (lefts + marker.width <= box.left)
        free &= beside | (tops >= box.top + box.height) | (tops + marker.height <= box.top)
    lefts, tops = lefts[free], tops[free]
    if not len(lefts):
        return None
    across = np.clip(marker.x, lefts, lefts + marker.width) - marker.x
    down = np.clip(marker.y, tops, tops + marker.height) - marker.y
    best = np.lexsort((lefts, tops, lefts < marker.x, np.round(across**2 + down**2, 3)))[0]
    return Box(float(lefts[best]), float(tops[best]), marker.width, marker.height)


def _candidates(marker: Marker, area: Box) -> tuple[np.ndarray, np.ndarray]:
    """Left and upper edges: right beside the marker, and all over the area."""
    columns = area.left + np.arange(0.0, max(area.width - marker.width, 0.0) + 1e-9, _STEP)
    rows = area.top + np.arange(0.0, max(area.height - marker.height, 0.0) + 1e-9, _STEP)
    lefts, tops = np.meshgrid(columns, rows)
    beside = marker.radius + _CLEARANCE
    at_right, at_left = marker.x + beside, marker.x - beside - marker.width
    level = marker.y - marker.height / 2
    return np.append(lefts, [at_right, at_left]), np.append(tops, [level, level])
