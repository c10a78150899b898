"""A stage of the tree: a technique applied to the parent's model."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import Claims, StageRecord, Step, read_stage_record
from collabopt.components.engine.session import make_deterministic, stage_session
from collabopt.components.engine.settings import (
    ClusteringSettings,
    PostTrainingQuantizationSettings,
    PruningSettings,
    TrainingSettings,
    settings_for,
)
from collabopt.components.engine.stage_host import hosted
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.stages.outcome import finish_interior, finish_leaf, measure_keras, metric_drop
from collabopt.components.engine.techniques import (
    CLUSTERED,
    SPARSE,
    TECHNIQUES,
    Technique,
    pathway_of,
    properties_after,
)
from collabopt.components.engine.tracking import StageRun, stage_run
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
) -> StageResult:
    """Runs one stage of the tree.

    Args:
        technique: Name of the technique to apply.
        stage: Name of the stage in the tree.
        parent: Directory of the parent's fp32 model.
        dataset: `Dataset` directory.
        output: Directory to write: a fp32 model and `stage.json`, or a leaf's `model.tflite` and `report.json`.
        task: Import path of the task.
        settings: Hyperparameters as the component got them.
        overrides: Hyperparameters that take precedence.

    Returns:
        Scalars and metadata of the outcome.

    Raises:
        CollaboptError: Bad settings, or a model that the technique cannot take.
    """
    with stage_session(stage):
        checked = settings_for(technique, {**settings, **overrides}, stage)
        parent_record = read_stage_record(parent)
        data = StoredDataset(dataset)
        _check_parent(technique, stage, parent_record, data)
        step = Step(stage=stage, technique=technique, settings=checked.model_dump())
        lineage = [*parent_record.lineage, step]
        with stage_run(stage, tags=_lineage_tags(lineage)) as run:
            run.log_params(step.settings)
            work = _Work(stage, parent, parent_record, data, load_task(task), run)
            record = StageRecord(
                lineage=lineage,
                task=task,
                dataset_digest=data.spec.digest,
                metric=parent_record.metric,
                claims=_kept(parent_record.claims, TECHNIQUES[technique]),
                mlflow=run.ids,
                versions=versions(),
            )
            make_deterministic(step.settings["seed"])
            if TECHNIQUES[technique].deploys:
                tflite = _LEAVES[technique](work, checked)
                return finish_leaf(tflite, record, Path(output), run, data, work.task, work.curve)
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


def _kept(claims: Claims, technique: Technique) -> Claims:
    sparse, clustered = SPARSE in technique.preserves, CLUSTERED in technique.preserves
    return Claims(
        sparsity=claims.sparsity if sparse else {},
        zero_positions=claims.zero_positions if sparse else {},
        clusters=claims.clusters if clustered else {},
    )


@dataclass(frozen=True)
class _Work:
    """What a technique works with; `curve` collects one row per epoch."""

    stage: str
    parent_directory: str
    parent: StageRecord
    data: StoredDataset
    task: Task
    run: StageRun
    curve: list[dict[str, float]] = field(default_factory=list)

    def load_parent(self) -> Any:
        from collabopt.components.engine.models.store import load_stage_model

        accepted_with = self.parent.lineage[0].settings
        return load_stage_model(self.parent_directory, allow_lambda=bool(accepted_with.get("allow_lambda")))

    def fitting(self, plain_model: Any, settings: TrainingSettings) -> Callable[[Any, Sequence[Any]], None]:
        """A function that fine-tunes what has been wrapped around `plain_model`."""
        from collabopt.components.engine.training.fine_tune import fine_tune

        loss = self.task.loss(plain_model)

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            by_split = {_with_split(name): value for name, value in metrics.items()}
            self.curve.append({"epoch": epoch, **by_split})
            self.run.log_epoch(epoch, by_split)
            emit(self.stage, "epoch", epoch=epoch, epochs=settings.epochs, metrics=dict(metrics))

        def fit(model: Any, callbacks: Sequence[Any]) -> None:
            fine_tune(model, self.data, self.task, settings, loss=loss, on_epoch=on_epoch, callbacks=callbacks)

        return fit


def _prune(work: _Work, settings: PruningSettings) -> tuple[Any, Claims]:
    from collabopt.components.engine.compression.kernels import claims_of
    from collabopt.components.engine.compression.pruning import prune

    model = work.load_parent()
    pruned = prune(model, settings, work.data.spec.sizes["train"], work.fitting(model, settings))
    return pruned, claims_of(pruned, pruned=True, clustered=False)


def _cluster(work: _Work, settings: ClusteringSettings, *, preserve_sparsity: bool = False) -> tuple[Any, Claims]:
    from collabopt.components.engine.compression.clustering import cluster
    from collabopt.components.engine.compression.kernels import claims_of

    model = work.load_parent()
    fit = work.fitting(model, settings)
    clustered = cluster(model, settings, preserve_sparsity=preserve_sparsity, fit=fit)
    return clustered, claims_of(clustered, pruned=preserve_sparsity, clustered=True, per_channel=settings.per_channel)


def _sparsity_preserving_cluster(work: _Work, settings: ClusteringSettings) -> tuple[Any, Claims]:
    return _cluster(work, settings, preserve_sparsity=True)


def _post_training_quantize(work: _Work, settings: PostTrainingQuantizationSettings) -> bytes:
    from collabopt.components.engine.deployed.convert import to_int8

    def representative() -> Iterator[list[Any]]:
        return work.data.representative(settings.representative_samples)

    return to_int8(work.load_parent(), representative)


def _quantize_aware(preserve: frozenset[str]) -> Callable[[_Work, TrainingSettings], bytes]:
    def quantize(work: _Work, settings: TrainingSettings) -> bytes:
        from collabopt.components.engine.compression.quantization import quantize_aware
        from collabopt.components.engine.deployed.convert import to_int8

        model = work.load_parent()
        return to_int8(quantize_aware(model, work.stage, preserve, work.fitting(model, settings)), None)

    return quantize


_INTERIORS: dict[str, Callable[[_Work, Any], tuple[Any, Claims]]] = {
    "prune": _prune,
    "cluster": _cluster,
    "sparsity_preserving_cluster": _sparsity_preserving_cluster,
}
_LEAVES: dict[str, Callable[[_Work, Any], bytes]] = {
    "post_training_quantize": _post_training_quantize,
    "quantize_aware_train": _quantize_aware(frozenset()),
    "sparsity_preserving_qat": _quantize_aware(frozenset({SPARSE})),
    "cluster_preserving_qat": _quantize_aware(frozenset({CLUSTERED})),
    "sparsity_cluster_preserving_qat": _quantize_aware(frozenset({SPARSE, CLUSTERED})),
}


def _with_split(keras_name: str) -> str:
    """`accuracy` -> `train/accuracy`: what an epoch reports must not pass for the figure on the test split."""
    return f"validation/{keras_name.removeprefix('val_')}" if keras_name.startswith("val_") else f"train/{keras_name}"


def _fp32_metrics(model: Any, record: StageRecord, data: StoredDataset, task: Task) -> dict[str, float]:
    from collabopt.components.engine.compression.kernels import overall_sparsity

    measured = measure_keras(model, data, task)
    return {**measured, **metric_drop(record.metric, measured), "sparsity": overall_sparsity(model)}


def _lineage_tags(lineage: Sequence[Step]) -> dict[str, str]:
    return {
        "collabopt.parent_stage": lineage[-2].stage,
        "collabopt.technique": lineage[-1].technique,
        "collabopt.techniques": ">".join(step.technique for step in lineage),
        "collabopt.pathway": pathway_of(step.technique for step in lineage),
        "collabopt.leaf": str(TECHNIQUES[lineage[-1].technique].deploys).lower(),
    }
