"""Stages that train nothing, because it is known already that nothing of theirs could ship.

A pipeline is the same for every run: a stage that is not needed runs too, finds the reason, and writes `skipped.json`
in the place of a model. A reason that is known before the run reaches the stage comes as the input `skip`, one string a
stage: so a reason that changes invalidates what Kubeflow has cached of that stage, and of those below it, and no more.
"""

from pathlib import Path

from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import (
    Claims,
    SkippedRecord,
    StageRecord,
    read_skipped,
    read_stage_record,
    write_record,
)
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.tracking import StageRun


def read_parent(directory: str | Path) -> StageRecord:
    """Reads the record of the stage that another one stands below, whether it was trained or not.

    Raises:
        CollaboptError: There is no such record, or it does not read as one.
    """
    return read_skipped(directory) or read_stage_record(directory)


def reason_to_skip(given: str, parent: StageRecord) -> str:
    """Why a stage is not trained.

    Args:
        given: What was known before, as the stage's input `skip` has it; "" for nothing.
        parent: Record of its parent.

    Returns:
        One line; "" where the stage is trained.
    """
    if given:
        return given
    first = next((step for step in parent.lineage if step.skipped), None)
    return f"'{first.name}', which it stands below, was not trained: {first.skipped}" if first else ""


def skip_stage(record: StageRecord, output: Path, run: StageRun) -> StageResult:
    """Writes `skipped.json`, and says so in MLflow and to whoever watches.

    Args:
        record: Record of the stage, whose last step says why it is not trained; claims are left out.
        output: Directory to write.
        run: The stage's MLflow run.

    Returns:
        No scalars, and the reason.
    """
    *way, last = record.lineage
    step = last.model_copy(update={"mlflow_run_id": record.mlflow.get("run_id", "")})
    skipped = SkippedRecord(**{**dict(record), "lineage": [*way, step], "claims": Claims()})
    output.mkdir(parents=True, exist_ok=True)
    run.log_artifact(write_record(skipped, output))
    emit(skipped.name, "skipped", message=skipped.reason)
    metadata = {"stage": skipped.stage, "technique": skipped.technique, "skipped": skipped.reason}
    metadata |= {f"mlflow_{name}": value for name, value in skipped.mlflow.items()}
    return StageResult({}, metadata)
