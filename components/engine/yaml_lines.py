"""YAML with the line of every key, for messages that lead the reader there."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from collabopt.components.engine.errors import CollaboptError

# Keys and positions from the root to a value, all as text.
Path = tuple[str, ...]


def read_yaml(text: str, source: str, what: str, example: str) -> tuple[Any, dict[Path, int]]:
    """Reads a YAML mapping.

    Args:
        text: The YAML.
        source: Where it comes from, for messages.
        what: What it is, as "the policy".
        example: A line that it could consist of.

    Returns:
        The values, `{}` for an empty text; and the line, counted from 1, of every key and list item by its path.

    Raises:
        CollaboptError: It is not valid YAML, not a mapping, or gives a key twice, which YAML itself would accept.
    """
    todo = f"write one `key: value` per line, for example `{example}`"
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        if root is None or root.tag == "tag:yaml.org,2002:null":
            return {}, {}
        if not isinstance(root, yaml.MappingNode):
            at = f"{source}, line {root.start_mark.line + 1}"
            raise CollaboptError(f"{what} must map keys to values", where=at, todo=todo)
        lines: dict[Path, int] = {}
        _note_lines(root, (), lines, set(), source, what)
        return yaml.safe_load(text), lines
    # Numbers and dates that look like ones but are none end in a ValueError; nests without end in a RecursionError.
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        at = f"{source}, line {mark.line + 1}" if mark else source
        raise CollaboptError(f"{what} is not valid YAML: {problem}", where=at, todo=todo) from error


def place_in(path: Sequence[str | int], lines: Mapping[Path, int]) -> str:
    """`line N` for a path, or for what it lies in; "" where nothing of it is in the text."""
    texts = tuple(map(str, path))
    line = next((lines[texts[:length]] for length in range(len(texts), 0, -1) if texts[:length] in lines), None)
    return f"line {line}" if line else ""


def place_of(source: str, path: Sequence[str | int], lines: Mapping[Path, int]) -> str:
    """`SOURCE, line N` for a path; the source alone where nothing of it is in the text."""
    place = place_in(path, lines)
    return f"{source}, {place}" if place else source


def _note_lines(node: yaml.Node, path: Path, lines: dict[Path, int], seen: set[int], source: str, what: str) -> None:
    if id(node) in seen:  # an alias, which may lie within itself
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for number, item in enumerate(node.value):
            here = (*path, str(number))
            lines[here] = item.start_mark.line + 1
            _note_lines(item, here, lines, seen, source, what)
    elif isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name, line = str(key.value), key.start_mark.line + 1
            here = (*path, name)
            if here in lines:
                raise CollaboptError(
                    f"{what} gives '{name}' twice (lines {lines[here]} and {line})",
                    where=source,
                    todo="keep one of them",
                )
            lines[here] = line
            _note_lines(value, here, lines, seen, source, what)
