"""The one error type that users are meant to read."""


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
