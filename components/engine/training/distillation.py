"""Knowledge distillation: what is fine-tuned also learns from the outputs of the model that it was made from.

loss = (1 - w) * task's loss + w * T^2 * KL(teacher at temperature T || student at T), after Hinton et al. 2015
(https://arxiv.org/abs/1503.02531); with the full-precision parent as the teacher of its own compressed form, as in
Mishra & Marr 2017 (https://arxiv.org/abs/1711.05852).
"""

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from collabopt.components.engine.settings import Settings, TrainingSettings
from collabopt.components.engine.training.task import Task

_Settings = TypeVar("_Settings", bound=Settings)

# Half of the step in which an int8 softmax tells probabilities: no output of a student says less. It also keeps the
# gradient of a logarithm finite where an output is quantized to zero.
_SMALLEST_PROBABILITY = 1 / 512


@dataclass(frozen=True)
class Teacher:
    """What a model learns from beside the labels.

    Attributes:
        load: Loads the teacher, a plain tf_keras model of the same inputs.
        loss: (teacher's outputs, student's outputs, temperature) -> loss of every sample `[n]`.
        weight: Share of `loss` in the whole loss, in (0, 1].
        temperature: Softens the outputs of both.
    """

    load: Callable[[], Any]
    loss: Callable[[Any, Any, float], Any]
    weight: float
    temperature: float


def as_task_allows(settings: _Settings, task: Task) -> _Settings:
    """The settings, where the task has no `distillation` with 0 for the default of `distillation_weight`.

    Any other weight stays, and is refused when it comes to training.
    """
    if not isinstance(settings, TrainingSettings) or task.distillation is not None:
        return settings
    by_default = settings.distillation_weight == TrainingSettings().distillation_weight
    return settings.model_copy(update={"distillation_weight": 0.0}) if by_default else settings


@contextlib.contextmanager
def taught(model: Any, teacher: Teacher | None) -> Iterator[None]:
    """Has a compiled model learn from a teacher while inside; what it reports as `loss` stays the task's.

    The teacher costs its forward pass and memory, and is no part of the model: nothing of it is saved or converted.

    Args:
        model: A compiled tf_keras model, wrapped or not.
        teacher: Its teacher; None for none.
    """
    if teacher is None:
        yield
        return
    import tensorflow as tf

    with model.distribute_strategy.scope():
        frozen = teacher.load()
    frozen.trainable = False
    task_loss = model.compute_loss

    def compute_loss(x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None) -> Any:
        of_task = task_loss(x, y, y_pred, sample_weight)
        each = teacher.loss(frozen(x, training=False), y_pred, teacher.temperature)
        # As Keras scales its own losses: replicas add up their gradients.
        distilled = tf.reduce_mean(each) / tf.distribute.get_strategy().num_replicas_in_sync
        return (1 - teacher.weight) * of_task + teacher.weight * distilled

    model.compute_loss = compute_loss
    try:
        yield
    finally:
        del model.compute_loss
        model.train_function = model.test_function = None  # traced with the teacher


def soft_cross_entropy(teacher: Any, student: Any, temperature: float, *, from_logits: bool) -> Any:
    """T^2 * KL(teacher || student) of class scores softened by a temperature.

    Args:
        teacher: `[n, classes]` probabilities, or logits; of one column, those of class 1 of two.
        student: Likewise.
        temperature: T; T^2 keeps the gradients' size.
        from_logits: Whether both are logits.

    Returns:
        `[n]`.
    """
    import tensorflow as tf

    targets = tf.nn.log_softmax(_logits(teacher, from_logits) / temperature)
    learned = tf.nn.log_softmax(_logits(student, from_logits) / temperature)
    return temperature**2 * tf.reduce_sum(tf.exp(targets) * (targets - learned), axis=-1)


def _logits(outputs: Any, from_logits: bool) -> Any:
    """`[n, classes]` logits, up to a constant a sample, which a softmax does not see."""
    import tensorflow as tf

    if from_logits:
        return tf.concat([tf.zeros_like(outputs), outputs], -1) if outputs.shape[-1] == 1 else outputs
    both = tf.concat([1 - outputs, outputs], -1) if outputs.shape[-1] == 1 else outputs
    return tf.math.log(both + _SMALLEST_PROBABILITY)
