"""The stage that reads and splits the data."""

from collections.abc import Mapping
from pathlib import Path

from collabopt.components.engine.progress import emit
from collabopt.components.engine.session import stage_session
from collabopt.components.engine.settings import DatasetSettings, parse_settings
from collabopt.components.engine.source_digest import check_unchanged, data_digest
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.tracking import stage_run
from collabopt.components.engine.training.task import load_task

STAGE = "dataset"


def load_dataset_stage(
    *,
    source: str,
    source_digest: str = "",
    output: str,
    task: str,
    settings: Mapping[str, object],
    overrides: Mapping[str, object],
) -> StageResult:
    """Reads data, splits them and writes the `Dataset` directory.

    Args:
        source: Where the data are; see the load_dataset component.
        source_digest: What `configure` has found there; "" to take what there is.
        output: Directory to write.
        task: Import path of the task.
        settings: `DatasetSettings` by name, as the component got them.
        overrides: Settings that take precedence.

    Raises:
        CollaboptError: Data that are missing, broken or empty, or others than when the run was configured.
    """
    from collabopt.components.engine.datasets.load import load_dataset

    with stage_session(STAGE):
        checked = parse_settings(DatasetSettings, {**settings, **overrides}, STAGE)
        with stage_run(STAGE, tags={"collabopt.technique": "load_dataset"}) as run:
            run.log_params({"source": source, "source_digest": source_digest, **checked.model_dump()})
            purpose = load_task(task)
            spec = load_dataset(source, Path(output), checked, purpose)
            if source_digest:
                check_unchanged(source, source_digest, data_digest(source, purpose))
            metrics = {f"{split}_samples": float(size) for split, size in spec.sizes.items()}
            run.log_params({"digest": spec.digest})
            run.log_metrics(metrics)
            run.catch_up()
        emit(STAGE, "finished", metrics=metrics)
        return StageResult(metrics, {"digest": spec.digest, "source": source})
