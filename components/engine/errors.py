"""The one error type that users are meant to read."""

import difflib
from collections.abc import Iterable


class CollaboptError(Exception):
    """Something the user can mend: says what is wrong, where, and what to do.

    Attributes:
        what: One sentence that names the problem.
        where: The file, stage, layer or parameter it was found in; may be empty.
        todo: What the user can do about it; may be empty.
    """

    def __init__(self, what: str, *, where: str = "", todo: str = "") -> None:
        """Keeps the three parts; `str()` joins those that are set."""
        self.what = what
        self.where = where
        self.todo = todo
        lines = [what]
        if where:
            lines.append(f"  where: {where}")
        if todo:
            lines.append(f"  to do: {todo}")
        super().__init__("\n".join(lines))


def unknown(what: str, name: str, legal: Iterable[str], where: str = "") -> CollaboptError:
    """The error for a name that is not among the legal ones, with the closest of them."""
    names = list(legal)
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"; did you mean '{close[0]}'?" if close else ""
    return CollaboptError(what + hint, where=where, todo=f"use one of: {', '.join(names)}")
