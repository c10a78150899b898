"""What every technique works with: the parent's model, the data, the task, and where progress goes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import StageRecord
from collabopt.components.engine.settings import TrainingSettings
from collabopt.components.engine.tracking import StageRun
from collabopt.components.engine.training.task import Task

if TYPE_CHECKING:
    from collabopt.components.engine.training.distillation import Teacher


@dataclass(frozen=True)
class Work:
    """What a technique works with.

    Attributes:
        stage: Name of the stage in the tree.
        parent_directory: Directory of the parent's fp32 model.
        parent: Its record.
        data: The data set.
        task: Losses, metrics and augmentation.
        run: The stage's MLflow run.
        curve: Collects one row per epoch.
    """

    stage: str
    parent_directory: str
    parent: StageRecord
    data: StoredDataset
    task: Task
    run: StageRun
    curve: list[dict[str, float]] = field(default_factory=list)

    def load_parent(self) -> Any:
        """The parent's model, loaded afresh: some techniques train the very layers that they are given.

        Raises:
            CollaboptError: It does not read, or is not what its record says.
        """
        from collabopt.components.engine.compression.kernels import check_zero_positions, compressible_kernels
        from collabopt.components.engine.models.store import load_stage_model

        accepted_with = self.parent.lineage[0].settings
        model = load_stage_model(self.parent_directory, allow_lambda=bool(accepted_with.get("allow_lambda")))
        check_zero_positions(compressible_kernels(model), self.parent.claims)
        return model

    def fitting(self, plain_model: Any, settings: TrainingSettings) -> Callable[[Any, Sequence[Any]], None]:
        """A function that fine-tunes what has been wrapped around `plain_model`.

        Raises:
            CollaboptError: The settings want distillation, and the task cannot.
        """
        from collabopt.components.engine.training.fine_tune import fine_tune

        loss = self.task.loss(plain_model)
        teacher = self._teacher(plain_model, settings)

        def on_epoch(epoch: int, metrics: Mapping[str, float]) -> None:
            by_split = {_with_split(name): value for name, value in metrics.items()}
            self.curve.append({"epoch": epoch, **by_split})
            self.run.log_epoch(epoch, by_split)
            emit(self.stage, "epoch", epoch=epoch, epochs=settings.epochs, metrics=dict(metrics))

        def fit(model: Any, callbacks: Sequence[Any]) -> None:
            fine_tune(
                model,
                self.data,
                self.task,
                settings,
                loss=loss,
                on_epoch=on_epoch,
                callbacks=callbacks,
                teacher=teacher,
            )

        return fit

    def _teacher(self, plain_model: Any, settings: TrainingSettings) -> "Teacher | None":
        from collabopt.components.engine.training.distillation import Teacher

        if not settings.distillation_weight:
            return None
        if self.task.distillation is None:
            raise CollaboptError(
                f"the task '{self.task.name}' does not say how a model learns from another",
                where=f"stage '{self.stage}', distillation_weight={settings.distillation_weight:g}",
                todo="leave distillation_weight at 0, or give the task a `distillation`",
            )
        return Teacher(
            load=self.load_parent,
            loss=self.task.distillation(plain_model),
            weight=settings.distillation_weight,
            temperature=settings.distillation_temperature,
        )


def _with_split(keras_name: str) -> str:
    """`accuracy` -> `train/accuracy`: what an epoch reports must not pass for the figure on the test split."""
    return f"validation/{keras_name.removeprefix('val_')}" if keras_name.startswith("val_") else f"train/{keras_name}"
