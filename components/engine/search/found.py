"""The directory that a search on Kubeflow hands from wave to wave, and in the end to the gate."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import (
    Claims,
    LeafReport,
    StageRecord,
    read_leaf_report,
    read_skipped,
    read_stage_record,
)
from collabopt.components.engine.search.finished import Finished
from collabopt.components.engine.search.records import STATE_FILE, read_state
from collabopt.components.engine.stage_names import BASELINE

LEAVES = "leaves"


@dataclass(frozen=True)
class Found:
    """What the gate needs of a search.

    Attributes:
        leaves: Name of a leaf, trained or not -> its directory.
        policy: The policy that was searched by, as YAML.
        parameters: What it was about: space and budget.
    """

    leaves: dict[str, str]
    policy: str
    parameters: dict[str, object]


def read_found(directory: Path) -> Found:
    """Reads the directory of a search.

    Raises:
        CollaboptError: It is none.
    """
    state = read_state(directory / STATE_FILE)
    if state is None:
        raise CollaboptError(
            f"there is no {STATE_FILE}, so this is no search",
            where=str(directory),
            todo="pass output of propose_trials",
        )
    leaves = {path.name: str(path) for path in sorted((directory / LEAVES).iterdir())}
    return Found(leaves, state.policy, {**state.origin, **state.budget.as_params})


def take_leaves(leaves: Iterable[Path], directory: Path) -> None:
    """Copies trained leaves into the directory of a search, each once.

    Args:
        leaves: Directories; those of leaves that were not trained are passed over.
        directory: Of the search.
    """
    for leaf in leaves:
        if read_skipped(leaf) is not None:
            continue
        place = directory / LEAVES / read_leaf_report(leaf).name
        if not place.exists():
            shutil.copytree(leaf, place)


def finished_with(baseline: Path, dataset: Path, directory: Path) -> Finished:
    """What has been finished by the leaves that a search has taken: they say what they stand on.

    Args:
        baseline: Directory of the baseline.
        dataset: `Dataset` directory.
        directory: Of the search.
    """
    finished = Finished({BASELINE: baseline}, {BASELINE: read_stage_record(baseline)}, dataset)
    for leaf in sorted((directory / LEAVES).glob("*")):
        report = read_leaf_report(leaf)
        for length in range(2, len(report.lineage)):
            above = _above(report, length)
            finished.records.setdefault(above.name, above)
        finished.records[report.name] = report
        finished.models[report.name] = leaf
    return finished


def _above(leaf: LeafReport, length: int) -> StageRecord:
    """What a leaf tells of a stage above it: its way from the baseline, and no figures."""
    known = {name: getattr(leaf, name) for name in StageRecord.model_fields}
    return StageRecord(**{**known, "lineage": leaf.lineage[:length], "metrics": {}, "claims": Claims(), "mlflow": {}})
