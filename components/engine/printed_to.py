"""What a process prints, native libraries too, in a file."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def printed_to(log: Path | None) -> Iterator[None]:
    """Appends to a file what this process prints while inside; None lets it print."""
    if log is None:
        yield
        return
    with log.open("ab", buffering=0) as file:
        _flush()
        saved = os.dup(1), os.dup(2)
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
        try:
            yield
        finally:
            _flush()
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)


def _flush() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
