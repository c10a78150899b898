"""Elements of inline SVG, everything in them escaped."""

from html import escape

# Width of an average character, in font sizes; that of a wide sans-serif, so that labels rather have room.
_CHARACTER = 0.62


def element(tag: str, /, *children: str, **attributes: object) -> str:
    """One element.

    Args:
        tag: Its name.
        *children: Markup inside.
        **attributes: `_` stands for `-`, and `class_` for `class`; None is left out.
    """
    written = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    return f"<{tag}{written}>{''.join(children)}</{tag}>" if children else f"<{tag}{written}/>"


def text(content: str, x: float, y: float, class_: str | None = None, **attributes: object) -> str:
    """A line of text."""
    return element("text", escape(content), x=x, y=y, class_=class_, **attributes)


def figure(identifier: str, title: str, description: str, width: float, height: float, *content: str) -> str:
    """A picture with a name and a description for those who do not see it; scales down to its container.

    Args:
        identifier: Unique on the page.
        title: Its name.
        description: What it shows, with figures.
        width: In pixels.
        height: In pixels.
        *content: Markup.
    """
    return element(
        "svg",
        element("title", escape(title), id=f"{identifier}-title"),
        element("desc", escape(description), id=f"{identifier}-desc"),
        *content,
        role="img",
        aria_labelledby=f"{identifier}-title {identifier}-desc",
        viewBox=f"0 0 {_value(width)} {_value(height)}",
        style=f"max-width:{_value(width)}px",
        class_="chart",
    )


def width_of(content: str, size: float) -> float:
    """About how many pixels a line of text takes at a font size."""
    return len(content) * size * _CHARACTER


def fitted(content: str, width: float, size: float) -> str:
    """The text, cut to a width."""
    most = max(int(width / (size * _CHARACTER)), 2)
    return content if len(content) <= most else f"{content[: most - 1]}…"


def _value(value: object) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if isinstance(value, float) else str(value)
