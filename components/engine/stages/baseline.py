"""The stage that accepts the trained model and measures what every drop is counted from."""

from collections.abc import Mapping
from pathlib import Path

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.deployed.file_sizes import float_file_sizes
from collabopt.components.engine.models.accept import accepted_model
from collabopt.components.engine.records import MetricOfRecord, StageRecord, Step
from collabopt.components.engine.session import make_deterministic, stage_session
from collabopt.components.engine.settings import ImportSettings, parse_settings
from collabopt.components.engine.source_digest import check_unchanged, model_digest
from collabopt.components.engine.stage_host import hosted
from collabopt.components.engine.stage_names import BASELINE
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.stages.outcome import finish_interior, measure_keras
from collabopt.components.engine.tracking import stage_run
from collabopt.components.engine.tracking.stage_account import lineage_tags
from collabopt.components.engine.training.task import load_task
from collabopt.components.engine.versions import versions

STAGE = BASELINE


@hosted
def import_model_stage(
    *,
    source: str,
    source_digest: str = "",
    dataset: str,
    output: str,
    task: str,
    settings: Mapping[str, object],
    overrides: Mapping[str, object],
) -> StageResult:
    """Accepts the trained model as the baseline: loads, checks and measures it.

    Args:
        source: Where the model is; see the import_model component.
        source_digest: What `configure` has found there; "" to take what there is.
        dataset: `Dataset` directory that the model must fit.
        output: Directory to write.
        task: Import path of the task.
        settings: `ImportSettings` by name, as the component got them.
        overrides: Settings that take precedence.

    Raises:
        CollaboptError: A model that is missing, broken, unsafe, does not fit the data, or is another one than it was
            when the run was configured.
    """
    with stage_session(STAGE):
        checked = parse_settings(ImportSettings, {**settings, **overrides}, STAGE)
        data = StoredDataset(dataset)
        purpose = load_task(task)
        step = Step(stage=STAGE, technique="import_model", settings={"source": source, **checked.model_dump()})
        with stage_run(STAGE, tags=lineage_tags([step])) as run:
            run.log_params({**step.settings, "source_digest": source_digest})
            make_deterministic(checked.seed)
            model = accepted_model(source, data, purpose, checked)
            if source_digest:
                check_unchanged(source, source_digest, model_digest(source))
            measured = measure_keras(model, data, purpose)
            record = StageRecord(
                lineage=[step],
                task=task,
                dataset_digest=data.spec.digest,
                metric=MetricOfRecord(
                    name=purpose.metric.name,
                    higher_is_better=purpose.metric.higher_is_better,
                    baseline=measured[purpose.metric.name],
                ),
                metrics={**measured, **float_file_sizes(model)},
                mlflow=run.ids,
                versions=versions(),
            )
            return finish_interior(model, record, Path(output), run)
