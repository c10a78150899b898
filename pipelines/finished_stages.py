"""Which stages have been finished, as the directories say that kfp.local leaves behind.

A task has ended well once its `executor_output.json` is there; what was killed before is as if it had never begun.
"""

import json
from pathlib import Path

from collabopt.components.engine.records import (
    REPORT_FILE,
    STAGE_FILE,
    StageRecord,
    read_leaf_report,
    read_stage_record,
)
from collabopt.components.engine.search.finished import Finished

_ENDED = "executor_output.json"
_MODEL, _DATASET = "model", "dataset"


def finished_stages(root: Path) -> Finished:
    """Reads what has been finished below a pipeline root."""
    found = Finished()
    for ended in sorted(root.glob(f"*/*/{_ENDED}")):
        if not _is_whole(ended):
            continue
        task = ended.parent
        if (task / _DATASET).is_dir():
            found.dataset = task / _DATASET
        model = task / _MODEL
        record: StageRecord | None = None
        if (model / REPORT_FILE).is_file():
            record = read_leaf_report(model)
        elif (model / STAGE_FILE).is_file():
            record = read_stage_record(model)
        if record is not None:
            found.models[record.name] = model
            found.records[record.name] = record
    return found


def _is_whole(path: Path) -> bool:
    try:
        json.loads(path.read_bytes())
    except ValueError:
        return False
    return True
