"""Histograms of integer weights: zeros stand out as one bar, palettes as few."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from collabopt.components.engine.deployed.weights import StoredWeights
from collabopt.components.engine.report.formats import count, share
from collabopt.components.engine.report.svg import element, figure, text

_DRAWN = frozenset({"int8", "uint8", "int4", "uint4", "int2"})
_SIDE = 128
# How far the zero bar may rise above the others before it is cut.
_CUT_ABOVE = 1.6


@dataclass(frozen=True, eq=False)
class Histogram:
    """How often each integer occurs.

    Attributes:
        values: Distinct integers, ascending, the zero point subtracted.
        counts: How often each of them occurs.
        most_distinct: Most distinct integers in one tensor.
        tensors: Tensors counted.
        left_out: Tensors that are not stored as integers of 8 bits or less, and so not counted.
    """

    values: tuple[int, ...]
    counts: tuple[int, ...]
    most_distinct: int
    tensors: int = 1
    left_out: int = 0

    @property
    def total(self) -> int:
        """Weights counted."""
        return sum(self.counts)

    @property
    def zeros(self) -> float:
        """Share of zeros; NaN without weights."""
        zeros = sum(amount for value, amount in zip(self.values, self.counts, strict=True) if value == 0)
        return zeros / self.total if self.total else math.nan


def histogram_of(tensors: Iterable[StoredWeights]) -> Histogram:
    """Counts the integers of weight tensors."""
    tensors = list(tensors)
    drawn = [tensor for tensor in tensors if tensor.dtype in _DRAWN]
    centred = [tensor.values.astype(np.int16).reshape(-1) - tensor.zero_point for tensor in drawn]
    values, counts = np.unique(np.concatenate([np.empty(0, np.int16), *centred]), return_counts=True)
    return Histogram(
        values=tuple(values.tolist()),
        counts=tuple(counts.tolist()),
        most_distinct=max((len(np.unique(each)) for each in centred), default=0),
        tensors=len(drawn),
        left_out=len(tensors) - len(drawn),
    )


def weight_histogram(histogram: Histogram, title: str, identifier: str, width: int = 300, height: int = 120) -> str:
    """Draws one histogram; the zero bar has a colour of its own, and is cut where it towers above the others.

    Args:
        histogram: What to draw.
        title: Whose it is.
        identifier: Unique on the page.
        width: In pixels.
        height: In pixels.
    """
    side = max([_SIDE, *(abs(value) for value in histogram.values)])
    base, top = height - 18.0, 16.0
    slot = width / (2 * side + 1)
    others = [amount for value, amount in zip(histogram.values, histogram.counts, strict=True) if value]
    zero = sum(amount for value, amount in zip(histogram.values, histogram.counts, strict=True) if value == 0)
    ceiling = max(min(zero, _CUT_ABOVE * max(others, default=zero)), max(others, default=0), 1)
    bars = [
        f"M{(value + side + 0.5) * slot:.2f} {base:.2f}V{base - (base - top) * amount / ceiling:.2f}"
        for value, amount in zip(histogram.values, histogram.counts, strict=True)
        if value
    ]
    parts = [element("path", d="".join(bars), class_="bars", stroke_width=max(slot * 0.8, 0.9))] if bars else []
    middle = (side + 0.5) * slot
    parts += _zero_bar(middle, base, top, zero, ceiling, histogram.zeros, max(slot, 2.5))
    parts.append(element("line", x1=0, y1=base, x2=width, y2=base, class_="base"))
    for at, label, anchor in ((0, str(-side), "start"), (middle, "0", "middle"), (width, str(side - 1), "end")):
        parts.append(text(label, at, height - 4, "tick", text_anchor=anchor))
    return figure(identifier, f"Weights of {title}", describe(histogram), width, height, *parts)


def describe(histogram: Histogram) -> str:
    """The figures of a histogram in words."""
    if not histogram.total:
        return "no integer weights"
    in_one = "" if histogram.tensors == 1 else f", at most {histogram.most_distinct} in a tensor"
    return (
        f"{count(histogram.total)} weights, {share(histogram.zeros)} zeros, "
        f"{len(histogram.values)} distinct values{in_one}"
    )


def _zero_bar(x: float, base: float, top: float, zero: int, ceiling: float, part: float, width: float) -> Sequence[str]:
    if not zero:
        return [text("no zeros", x, top - 4, "zero-label", text_anchor="middle")]
    reach = base - (base - top) * min(zero / ceiling, 1.0)
    parts = [element("rect", x=x - width / 2, y=reach, width=width, height=max(base - reach, 0.5), class_="zero")]
    cut = zero > ceiling
    if cut:
        parts.append(
            element("path", d=f"M{x - 5:.2f} {top + 9:.2f}l10 -4M{x - 5:.2f} {top + 13:.2f}l10 -4", class_="cut")
        )
    label = f"{share(part)} zeros{' (bar cut)' if cut else ''}"
    parts.append(text(label, x, top - 4, "zero-label", text_anchor="middle"))
    return parts
