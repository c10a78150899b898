"""`PATH=VALUE` options over a nested mapping, in the manner of helm's --set."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.arguments import parse_value

_DOT = re.compile(r"(?<!\\)\.")


def parse_overrides(texts: Iterable[str], option: str) -> dict[tuple[str, ...], Any]:
    r"""Reads `PATH=VALUE` options.

    Args:
        texts: The options. Keys of PATH are joined by dots; a dot within a key is written `\.`. VALUE is YAML.
        option: Name of the option, for messages.

    Returns:
        Path -> value, in the order given.

    Raises:
        CollaboptError: One is malformed or given twice.
    """
    values: dict[tuple[str, ...], Any] = {}
    for text in texts:
        left, equals, right = text.partition("=")
        path = tuple(part.replace(r"\.", ".") for part in _DOT.split(left))
        if not equals or not all(path):
            raise CollaboptError(
                f"'{left}' does not read as a setting", where=option, todo=f"write {option} PATH=VALUE, as a.b=1"
            )
        if path in values:
            raise CollaboptError(f"'{left}' is set twice", where=option, todo="keep one of them")
        values[path] = parse_value(right, f"{option} {left}")
    return values


def override(base: dict[str, Any], overriding: Mapping[str, Any]) -> None:
    """Puts values into a nested mapping: mappings are merged, anything else is replaced."""
    for key, value in overriding.items():
        if isinstance(value, Mapping) and isinstance(base.get(key), dict):
            override(base[key], value)
        else:
            base[key] = dict(value) if isinstance(value, Mapping) else value
