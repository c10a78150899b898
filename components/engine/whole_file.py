"""Files that nobody ever reads half of."""

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Gives a file beside a place to write to, and moves it in: a kill leaves the old one or the new one.

    Args:
        path: The place; its directory must exist.

    Raises:
        OSError: It cannot be written there.
    """
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as directory:
        written = Path(directory) / path.name
        yield written
        os.replace(written, path)
