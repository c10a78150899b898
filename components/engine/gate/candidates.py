"""What the gate decides over: the baseline's record, and every leaf's report with the file that it describes.

Of a leaf that was not trained there is a record that says why.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.policy import Policy
from collabopt.components.engine.records import (
    TFLITE_FILE,
    LeafReport,
    SkippedRecord,
    StageRecord,
    read_leaf_report,
    read_skipped,
)


@dataclass(frozen=True)
class Candidates:
    """The baseline, and the leaves that may be shipped.

    Attributes:
        baseline: Record of the fp32 baseline.
        reports: Leaf -> its report, of those that were trained.
        directories: Leaf -> where its files lie.
        skipped: Leaf -> its record, of those that were not trained.
    """

    baseline: StageRecord
    reports: Mapping[str, LeafReport]
    directories: Mapping[str, Path]
    skipped: Mapping[str, SkippedRecord] = field(default_factory=dict)

    def tflite(self, leaf: str) -> bytes:
        """The file that the leaf's report describes."""
        return (self.directories[leaf] / TFLITE_FILE).read_bytes()


def read_candidates(baseline: StageRecord, leaves: Mapping[str, str | Path]) -> Candidates:
    """Reads leaf directories, and holds every file against its report.

    Args:
        baseline: Record of the fp32 baseline.
        leaves: Leaf -> its directory.

    Raises:
        CollaboptError: A leaf is incomplete, lies under another's name, or its file is not the one of its report.
    """
    directories = {name: Path(directory) for name, directory in leaves.items()}
    skipped = {name: record for name, directory in directories.items() if (record := read_skipped(directory))}
    for name, record in skipped.items():
        _check_name(name, record, directories[name])
    reports = {name: _read_leaf(name, directory) for name, directory in directories.items() if name not in skipped}
    return Candidates(baseline, reports, directories, skipped)


def with_accelerator(candidates: Candidates, accelerator: str | None) -> Candidates:
    """See `on_accelerator`, for all leaves."""
    reports = {
        name: on_accelerator(report, candidates.directories[name], accelerator)
        for name, report in candidates.reports.items()
    }
    return replace(candidates, reports=reports)


def on_accelerator(report: LeafReport, directory: Path, accelerator: str | None) -> LeafReport:
    """A leaf's report, its footprint estimated anew where a policy is about another NPU than it was measured on.

    Args:
        report: The report.
        directory: Where the leaf's files lie.
        accelerator: The policy's; None where it has none.
    """
    from collabopt.components.engine.deployed.npu import estimate_npu

    footprint = report.footprint
    if accelerator is None or footprint is None or footprint.npu.accelerator == accelerator:
        return report
    npu = estimate_npu((directory / TFLITE_FILE).read_bytes(), accelerator)
    return report.model_copy(update={"footprint": footprint.model_copy(update={"npu": npu})})


def digest_of(candidates: Candidates, policy: Policy) -> str:
    """Names a decision by all that it depends on but the champion: the same again is the same decision, repeated."""
    baseline = candidates.baseline
    facts = {
        "policy": policy.model_dump(mode="json"),
        "leaves": {
            **{name: report.deployed.sha256 for name, report in sorted(candidates.reports.items())},
            **dict.fromkeys(candidates.skipped, ""),
        },
        "baseline": baseline.metric.model_dump(mode="json"),
        "dataset": baseline.dataset_digest,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _check_name(name: str, record: StageRecord, directory: Path) -> None:
    if record.name != name:
        raise CollaboptError(
            f"the artifact passed as leaf '{name}' was made by stage '{record.name}'",
            where=str(directory),
            todo="pass every leaf under its own name",
        )


def _read_leaf(name: str, directory: Path) -> LeafReport:
    from collabopt.components.engine.deployed.inspect import inspect_tflite

    report = read_leaf_report(directory)
    _check_name(name, report, directory)
    file = directory / TFLITE_FILE
    if not file.is_file():
        raise CollaboptError(f"leaf '{name}' has no {TFLITE_FILE}", where=str(directory), todo="run the stage again")
    content = file.read_bytes()
    if hashlib.sha256(content).hexdigest() != report.deployed.sha256 or inspect_tflite(content) != report.deployed:
        raise CollaboptError(
            f"{TFLITE_FILE} of leaf '{name}' is not the file that its report describes",
            where=str(directory),
            todo="run the stage again",
        )
    return report
