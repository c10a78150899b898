"""The fine-tuning loop that every training stage shares."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.settings import TrainingSettings
from collabopt.components.engine.training.distillation import Teacher, taught
from collabopt.components.engine.training.task import Task

EpochReport = Callable[[int, Mapping[str, float]], None]


def fine_tune(
    model: Any,
    dataset: StoredDataset,
    task: Task,
    settings: TrainingSettings,
    *,
    loss: Any,
    on_epoch: EpochReport,
    callbacks: Sequence[Any] = (),
    teacher: Teacher | None = None,
) -> None:
    """Trains a model in place on the train split, watched on the validation split.

    Args:
        model: A tf_keras model, wrapped or not; its optimizer joins the strategy that it was built under.
        dataset: Its data.
        task: Supplies metrics and augmentation.
        settings: Epochs, batch size, learning rate, optimizer, seed.
        loss: The task's loss for the unwrapped model: wrappers hide the activation that it is chosen by.
        on_epoch: Called after every epoch with its number, from 1, and its Keras metrics.
        callbacks: Further Keras callbacks.
        teacher: What the model learns from beside the labels; None for nothing.
    """
    import tf_keras

    batches = dataset.batches("train", settings.batch_size, shuffle_seed=settings.seed, augment=task.augment)
    steps = settings.epochs * math.ceil(dataset.spec.sizes["train"] / settings.batch_size)
    with model.distribute_strategy.scope():
        model.compile(optimizer=make_optimizer(settings, steps), loss=loss, metrics=task.fit_metrics())
        _create_variables(model, batches.element_spec[1])
    reporter = tf_keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: on_epoch(epoch + 1, {name: float(value) for name, value in logs.items()})
    )
    with taught(model, teacher):
        model.fit(
            batches,
            validation_data=dataset.batches("validation", 256),
            epochs=settings.epochs,
            callbacks=[*callbacks, reporter],
            verbose=0,
        )


def _create_variables(model: Any, labels: Any) -> None:
    """Creates what Keras would create while it traces the first step, which makes it trace that step a second time.

    Tracing is most of a short fine-tuning: of a quantized network of hundreds of layers it takes minutes.
    """
    model.optimizer.build(model.trainable_variables)
    model.compiled_loss.build(model.output)
    model.compiled_metrics.build(model.output, labels)


def make_optimizer(settings: TrainingSettings, steps: int) -> Any:
    """The Keras optimizer that the settings name, with their learning rate and its schedule.

    Args:
        settings: What to train with.
        steps: How many steps there will be, in all epochs together.
    """
    import tf_keras

    rate = settings.learning_rate
    if settings.learning_rate_schedule == "cosine":
        rate = tf_keras.optimizers.schedules.CosineDecay(rate, decay_steps=steps)
    # Without this, tf_keras gives an optimizer of before 2.11: those have no AdamW.
    config = {"learning_rate": rate, "is_legacy_optimizer": False}
    return tf_keras.optimizers.get({"class_name": settings.optimizer, "config": config})
