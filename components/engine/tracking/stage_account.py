"""What the run of a stage of the tree has to show, as the stage's artifact tells it."""

import csv
from collections.abc import Sequence
from pathlib import Path

from collabopt.components.engine.records import (
    CURVE_FILE,
    REPORT_FILE,
    SKIPPED_FILE,
    TFLITE_FILE,
    LeafReport,
    SkippedRecord,
    Step,
)
from collabopt.components.engine.techniques import TECHNIQUES, pathway_of
from collabopt.components.engine.tracking.account import Account
from collabopt.components.engine.tracking.stage import STAGE_TAG, stage_params

SKIPPED_TAG = "collabopt.skipped"


def lineage_tags(lineage: Sequence[Step]) -> dict[str, str]:
    """Tags that tell where in the tree the last step of a lineage stands."""
    technique, skipped = lineage[-1].technique, lineage[-1].skipped
    if len(lineage) == 1:
        return {"collabopt.technique": technique, "collabopt.pathway": "baseline"}
    return {
        "collabopt.parent_stage": lineage[-2].name,
        "collabopt.technique": technique,
        "collabopt.techniques": ">".join(step.technique for step in lineage),
        "collabopt.pathway": pathway_of(step.technique for step in lineage),
        "collabopt.leaf": str(TECHNIQUES[technique].deploys).lower(),
        **({SKIPPED_TAG: skipped} if skipped else {}),
    }


def account_of_step(lineage: Sequence[Step]) -> Account:
    """The account of the last step of a lineage: tags, params and metrics."""
    step = lineage[-1]
    return Account(
        tags={STAGE_TAG: step.name, **lineage_tags(lineage)},
        params=stage_params(step.stage, step.settings),
        metrics=dict(step.metrics),
    )


def account_of_leaf(report: LeafReport, directory: Path) -> Account:
    """The account of a leaf: as of a step, with its training curve and its files."""
    account = account_of_step(report.lineage)
    account.metrics = dict(report.metrics)
    account.epochs = _read_curve(directory / CURVE_FILE)
    account.paths = [path for name in (TFLITE_FILE, REPORT_FILE, CURVE_FILE) if (path := directory / name).is_file()]
    return account


def account_of_skipped(record: SkippedRecord, directory: Path) -> Account:
    """The account of a leaf that was not trained: as of a step, with its record."""
    account = account_of_step(record.lineage)
    account.paths = [directory / SKIPPED_FILE]
    return account


def _read_curve(path: Path) -> dict[int, dict[str, float]]:
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return {int(row.pop("epoch")): {name: float(value) for name, value in row.items()} for row in rows}
