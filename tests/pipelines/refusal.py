"""How the command says no."""

import os


def refused(result: tuple[int, str, str], *expected: str, left: list[str] | None = None) -> None:
    """One clear message that holds the expected texts, and no more files in the working directory than `left`."""
    code, output, errors = result
    assert (code, output) == (1, "")
    assert errors.startswith("error: ")
    assert "Traceback" not in errors
    for text in expected:
        assert text in errors
    if left is not None:
        assert sorted(os.listdir()) == sorted(left)
