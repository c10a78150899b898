"""The process that runs a pipeline with `kfp.local`: `python -m collabopt.pipelines.local_worker JOB.json`.

It leads a process group of its own, which also holds the processes of all stages, so that whoever started it can end
all of them at once. When that one dies without a word, the worker ends the group itself.
"""

import contextlib
import importlib
import json
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collabopt.components.engine.stage_host import stage_host

LIFELINE_VARIABLE = "COLLABOPT_LIFELINE"


def main() -> None:
    """Runs the job described by the file that the command line names; exit code 1 when a task fails."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    _die_with_parent()
    job = json.loads(Path(sys.argv[1]).read_bytes())
    from kfp import local

    pipeline = load_attribute(job["pipeline"])
    local.init(
        local.SubprocessRunner(use_venv=False), pipeline_root=job["pipeline_root"], workspace_root=job["workspace_root"]
    )
    try:
        with stage_host() if job["stage_host"] else contextlib.nullcontext():
            pipeline(**job["arguments"])
    except RuntimeError as error:  # what kfp.local raises for a failed task; the task has printed its own traceback
        sys.exit(str(error))


def load_attribute(reference: str) -> Callable[..., Any]:
    """Imports `module:attribute`."""
    module, _, attribute = reference.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _die_with_parent() -> None:
    lifeline = os.environ.pop(LIFELINE_VARIABLE, None)
    if lifeline is None:
        return

    def wait() -> None:
        os.read(int(lifeline), 1)  # returns once the parent, which never writes, has closed its end
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=wait, daemon=True).start()


if __name__ == "__main__":
    main()
