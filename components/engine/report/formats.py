"""Figures as text. What is missing or not finite is a dash, never a zero."""

import math
import re

from markupsafe import Markup, escape

DASH = "-"
NOT_MEASURED = "not measured"


def number(value: float | None, digits: int = 4) -> str:
    """A metric: `0.9861`; of very small or large values as many digits."""
    if value is None or not math.isfinite(value):
        return DASH
    plain = value == 0 or 1e-3 <= abs(value) < 1e6
    return f"{value:.{digits}f}" if plain else f"{value:.{digits}g}"


def plain(value: float | None) -> str:
    """Any figure: counts as counts, the rest as metrics."""
    return count(value) if value is not None and abs(value) != 1 and float(value).is_integer() else number(value)


def signed(value: float | None) -> str:
    """A difference: `+0.0028`."""
    text = number(value)
    return text if value is None or text == DASH or text.startswith("-") else f"+{text}"


def count(value: float | None) -> str:
    """Something counted, as bytes: `24,280`."""
    return DASH if value is None or not math.isfinite(value) else f"{value:,.0f}"


def share(value: float | None) -> str:
    """A share: `50.0 %`."""
    return DASH if value is None or not math.isfinite(value) else f"{100 * value:.1f} %"


def bits(value: float | None) -> str:
    """Bits of a weight: `2.78`."""
    return DASH if value is None or not math.isfinite(value) else f"{value:.2f}"


def milliseconds(value: float | None) -> str:
    """A time without its unit, three significant digits: `0.0214`."""
    if value is None or not math.isfinite(value):
        return DASH
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:#.3g}".rstrip(".")


def per_second(value_ms: float | None) -> str:
    """How often a second something of that many milliseconds fits: `46,700`."""
    if value_ms is None or not math.isfinite(value_ms) or value_ms <= 0:
        return DASH
    return f"{float(f'{1000 / value_ms:.3g}'):,.10g}"


def shape(sizes: list[int]) -> str:
    """A shape: `32 x 3 x 3 x 1`."""
    return " x ".join(str(size) for size in sizes) or DASH


def setting(value: object) -> str:
    """A hyperparameter."""
    if isinstance(value, bool) or value is None:
        return str(value).lower() if value is not None else "none"
    return f"{value:g}" if isinstance(value, float) else str(value)


def breakable(name: str) -> Markup:
    """A name that a browser may break after `_`, `/` and `.`; escaped."""
    return Markup("<wbr>").join(escape(part) for part in re.split(r"(?<=[_/.])", name))
