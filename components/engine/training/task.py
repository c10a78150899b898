"""A task: what a model is for. Loss, metrics and their direction, augmentation, and (optionally) the data itself.

A task is one importable object, so that a derived image (`FROM collabopt`) can bring its own; every stage is given its
import path (`module:attribute`). Classification is just the default.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.errors import CollaboptError

if TYPE_CHECKING:
    import numpy as np

    from collabopt.components.engine.datasets.splits import Splits

DEFAULT_TASK = "collabopt.components.engine.training.classification:TASK"


@dataclass(frozen=True)
class Metric:
    """A figure of merit, computed from outputs, so that Keras and LiteRT are measured by the same code.

    Attributes:
        name: Lower-case identifier under which it is logged.
        higher_is_better: Its direction.
        compute: (outputs `[n, ...]` float32, labels `[n, ...]`) -> value.
        proportion: Whether the value is the share of samples that the model is right about, as accuracy is, between 0
            and 1. Its confidence interval is then Wilson's; that of any other metric is bootstrapped, which computes it
            on some hundred resamples of the test split.
    """

    name: str
    higher_is_better: bool
    compute: "Callable[[np.ndarray, np.ndarray], float]"
    proportion: bool = False


@dataclass(frozen=True)
class Task:
    """What a model is for.

    Attributes:
        name: Short name for logs.
        metric: The metric that the gate decides on.
        loss: Model -> Keras loss to fine-tune with.
        more_metrics: Further metrics to measure on the test split.
        distillation: Model -> a loss to learn from a teacher with: (teacher's outputs, student's outputs, temperature)
            -> `[n]`, least where the student gives what the teacher gives; stages that train then learn from their
            parent unless `distillation_weight` is 0. None where the task has none: they learn from labels alone. Of a
            regression, say, the squared difference, whatever the temperature:
            `lambda model: lambda teacher, student, _: tf.reduce_mean((teacher - student) ** 2, -1)`.
        fit_metrics: -> Keras metrics to show after every epoch.
        augment: (features, labels) -> (features, labels) on training batches of tensors; None for none.
        check: (labels of one split, output shape without batch) -> None; raises CollaboptError on labels that do not
            fit the model.
        data: seed -> splits, where the data come from the task instead of a file; None for none.
        data_version: -> what names the present version of these data (a snapshot, a table's revision), where they come
            from outside the image. While it stays the same, so do the data, and the data set is taken from Kubeflow's
            cache. None says that image and seed determine them.
    """

    name: str
    metric: Metric
    loss: Callable[[Any], Any]
    more_metrics: tuple[Metric, ...] = ()
    fit_metrics: Callable[[], list[Any]] = field(default=list)
    augment: Callable[[Any, Any], tuple[Any, Any]] | None = None
    check: "Callable[[np.ndarray, tuple[int, ...]], None] | None" = None
    data: "Callable[[int], Splits] | None" = None
    data_version: Callable[[], str] | None = None
    distillation: Callable[[Any], Callable[[Any, Any, float], Any]] | None = None

    def measure(self, outputs: "np.ndarray", labels: "np.ndarray") -> dict[str, float]:
        """Computes every metric; outputs `[n, ...]` and labels `[n, ...]` belong together by row."""
        return {metric.name: float(metric.compute(outputs, labels)) for metric in (self.metric, *self.more_metrics)}


def load_task(import_path: str) -> Task:
    """Imports a task.

    Args:
        import_path: `package.module:attribute`.

    Raises:
        CollaboptError: The path does not lead to a `Task`.
    """
    module_name, _, attribute = import_path.partition(":")
    todo = "write it as package.module:attribute, and make sure that the image holds the module"
    if not module_name or not attribute or module_name.startswith("."):
        raise CollaboptError(f"'{import_path}' is not the import path of a task", todo=todo)
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise CollaboptError(f"the module of task '{import_path}' cannot be imported: {error}", todo=todo) from error
    if not hasattr(module, attribute):
        raise CollaboptError(f"module '{module_name}' has no task '{attribute}'", todo=todo)
    task = getattr(module, attribute)
    if not isinstance(task, Task):
        raise CollaboptError(f"'{import_path}' is a {type(task).__name__}, not a Task", todo=todo)
    return task
