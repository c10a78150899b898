"""Progress events: one JSON line each, appended to the file that `COLLABOPT_PROGRESS_FILE` names.

A stage runs in a process (or pod) of its own; whoever watches it reads this file. Without the variable nothing is
written. Appends of one short line are atomic on a local file system, so concurrent stages may share the file.
"""

import json
import os
import time

PROGRESS_FILE_VARIABLE = "COLLABOPT_PROGRESS_FILE"


def emit(stage: str, event: str, **fields: object) -> None:
    """Appends one event.

    Args:
        stage: Name of the stage that reports.
        event: One of `started`, `epoch`, `finished`, `skipped`, `failed`.
        **fields: JSON-serialisable details: `epoch`, `epochs` and `metrics` of an epoch; `metrics` of a finished
            stage; `message` of a failed one, of one that is not trained, or in the place of scalars.
    """
    path = os.environ.get(PROGRESS_FILE_VARIABLE)
    if not path:
        return
    line = json.dumps({"time": time.time(), "stage": stage, "event": event, **fields})
    with open(path, "a", encoding="utf-8") as file:
        file.write(line + "\n")
