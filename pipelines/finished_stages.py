"""Which stages have been finished, as the directories say that kfp.local leaves behind.

A task has ended well once its `executor_output.json` is there; what was killed before is as if it had never begun.
"""

import json
from dataclasses import dataclass, field
from pathlib import Path

from collabopt.components.engine.records import (
    REPORT_FILE,
    STAGE_FILE,
    StageRecord,
    read_leaf_report,
    read_stage_record,
)

_ENDED = "executor_output.json"
_MODEL, _DATASET = "model", "dataset"


@dataclass
class Finished:
    """The artifacts of all pipelines that ran below one root.

    Attributes:
        models: Name of a stage, in a search with its trial -> directory of its model.
        records: The same -> what it says of itself.
        dataset: Directory of the data set; None before it was loaded.
    """

    models: dict[str, Path] = field(default_factory=dict)
    records: dict[str, StageRecord] = field(default_factory=dict)
    dataset: Path | None = None


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
