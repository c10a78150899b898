"""A stage of the tree: a technique applied to the parent's model."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.deployed.leaf import Leaf
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.kept_claims import kept_claims
from collabopt.components.engine.records import Claims, StageRecord, Step
from collabopt.components.engine.session import make_deterministic, stage_session
from collabopt.components.engine.settings import (
    ClusteringSettings,
    PruningSettings,
    settings_for,
)
from collabopt.components.engine.skipping import read_parent, reason_to_skip, skip_stage
from collabopt.components.engine.stage_host import hosted
from collabopt.components.engine.stage_names import split_name
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.stages.leaf import post_training_quantize, quantize_aware_train
from collabopt.components.engine.stages.outcome import finish_interior, finish_leaf, measure_keras, metric_drop
from collabopt.components.engine.stages.work import Work
from collabopt.components.engine.techniques import (
    TECHNIQUES,
    properties_after,
)
from collabopt.components.engine.tracking import stage_run
from collabopt.components.engine.tracking.stage_account import lineage_tags
from collabopt.components.engine.training.distillation import as_task_allows
from collabopt.components.engine.training.task import Task, load_task
from collabopt.components.engine.versions import versions


@hosted
def run_stage(
    technique: str,
    *,
    stage: str,
    parent: str,
    dataset: str,
    output: str,
    task: str,
    settings: Mapping[str, object],
    overrides: Mapping[str, object],
    skip: str = "",
) -> StageResult:
    """Runs one stage of the tree.

    Args:
        technique: Name of the technique to apply.
        stage: Name of the stage in the tree; in a search with the trial, as `pcqat@3`.
        parent: Directory of the parent's fp32 model.
        dataset: `Dataset` directory.
        output: Directory to write: a fp32 model and `stage.json`, or a leaf's `model.tflite` and `report.json`; where
            the stage is not trained, `skipped.json`.
        task: Import path of the task.
        settings: Hyperparameters as the component got them.
        overrides: Hyperparameters that take precedence.
        skip: Why the stage is not trained; "" to train it, unless its parent was not.

    Returns:
        Scalars and metadata of the outcome.

    Raises:
        CollaboptError: Bad settings, or a model that the technique cannot take.
    """
    with stage_session(stage):
        checked = settings_for(technique, {**settings, **overrides}, stage)
        parent_record = read_parent(parent)
        data = StoredDataset(dataset)
        _check_parent(technique, stage, parent_record, data)
        purpose = load_task(task)
        checked = as_task_allows(checked, purpose)
        reason = reason_to_skip(skip, parent_record)
        place, trial = split_name(stage)
        step = Step(stage=place, technique=technique, settings=checked.model_dump(), skipped=reason, trial=trial)
        lineage = [*parent_record.lineage, step]
        with stage_run(stage, tags=lineage_tags(lineage)) as run:
            run.log_params(step.settings)
            record = StageRecord(
                lineage=lineage,
                task=task,
                dataset_digest=data.spec.digest,
                metric=parent_record.metric,
                claims=kept_claims(parent_record.claims, TECHNIQUES[technique], step.settings),
                mlflow=run.ids,
                versions=versions(),
            )
            if reason:
                return skip_stage(record, Path(output), run)
            work = Work(stage, parent, parent_record, data, purpose, run)
            make_deterministic(step.settings["seed"])
            if TECHNIQUES[technique].deploys:
                leaf = _LEAVES[technique](work, checked, record.claims)
                return finish_leaf(leaf, record, Path(output), run, data, work.task, work.curve)
            model, claims = _INTERIORS[technique](work, checked)
            metrics = _fp32_metrics(model, record, data, work.task)
            record = record.model_copy(update={"claims": claims, "metrics": metrics})
            return finish_interior(model, record, Path(output), run, work.curve)


def _check_parent(technique: str, stage: str, parent: StageRecord, data: StoredDataset) -> None:
    missing = TECHNIQUES[technique].requires - properties_after(step.technique for step in parent.lineage)
    if missing:
        raise CollaboptError(
            f"{technique} needs a parent that is {' and '.join(sorted(missing))}, but '{parent.stage}' is not",
            where=f"stage '{stage}'",
            todo="put the stage below one that prunes or clusters, or use another technique",
        )
    if parent.dataset_digest != data.spec.digest:
        raise CollaboptError(
            f"the parent '{parent.stage}' was made with another data set",
            where=f"stage '{stage}'",
            todo="pass the output of the load_dataset that the parent had",
        )


def _prune(work: Work, settings: PruningSettings) -> tuple[Any, Claims]:
    from collabopt.components.engine.compression.pruning import prune
    from collabopt.components.engine.training.distribution import fine_tuning_strategy

    model = work.load_parent()
    with fine_tuning_strategy().scope():
        return prune(model, settings, work.data.spec.sizes["train"], work.fitting(model, settings))


def _cluster(work: Work, settings: ClusteringSettings) -> tuple[Any, Claims]:
    return _cluster_below(work, settings, Claims())


def _sparsity_preserving_cluster(work: Work, settings: ClusteringSettings) -> tuple[Any, Claims]:
    return _cluster_below(work, settings, work.parent.claims)


def _cluster_below(work: Work, settings: ClusteringSettings, claims: Claims) -> tuple[Any, Claims]:
    from collabopt.components.engine.compression.clustering import cluster
    from collabopt.components.engine.training.distribution import fine_tuning_strategy

    model = work.load_parent()
    with fine_tuning_strategy().scope():
        return cluster(model, settings, claims, work.fitting(model, settings))


_INTERIORS: dict[str, Callable[[Work, Any], tuple[Any, Claims]]] = {
    "prune": _prune,
    "cluster": _cluster,
    "sparsity_preserving_cluster": _sparsity_preserving_cluster,
}
_LEAVES: dict[str, Callable[[Work, Any, Claims], Leaf]] = {
    "post_training_quantize": post_training_quantize,
    "quantize_aware_train": quantize_aware_train,
    "sparsity_preserving_qat": quantize_aware_train,
    "cluster_preserving_qat": quantize_aware_train,
    "sparsity_cluster_preserving_qat": quantize_aware_train,
}


def _fp32_metrics(model: Any, record: StageRecord, data: StoredDataset, task: Task) -> dict[str, float]:
    from collabopt.components.engine.compression.kernels import overall_sparsity

    measured = measure_keras(model, data, task)
    return {**measured, **metric_drop(record.metric, measured), "sparsity": overall_sparsity(model)}
