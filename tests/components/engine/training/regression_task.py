"""A task of one's own: regression, where a lower metric is better, with data that it makes itself."""

from typing import Any

import numpy as np

from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.training.task import Metric, Task

SIZES = {"train": 96, "calibration": 16, "validation": 16, "test": 32}
FEATURES = 6


def mean_absolute_error(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Of outputs `[n, 1]` against labels `[n]`."""
    return float(np.mean(np.abs(outputs.reshape(-1) - labels.reshape(-1))))


def check_targets(labels: np.ndarray, output_shape: tuple[int, ...]) -> None:
    """Refuses targets that are not one float a sample, and models that do not give one number."""
    if labels.dtype.kind != "f" or labels.ndim != 1 or output_shape != (1,):
        raise CollaboptError(
            f"regression needs one float a sample and one output, but labels are {labels.dtype} {labels.shape[1:]} and "
            f"the output {output_shape}",
            todo="store targets as floats",
        )


def synthetic_data(seed: int) -> Splits:
    """Targets that are a linear function of features `[n, FEATURES]` between -1 and 1, and a little noise."""
    random = np.random.default_rng(seed)
    weights = np.linspace(-1, 1, FEATURES)

    def draw(size: int) -> Samples:
        features = random.uniform(-1, 1, (size, FEATURES)).astype(np.float32)
        targets = features @ weights + random.normal(0, 0.01, size)
        return Samples(features, targets.astype(np.float32))

    return Splits({name: draw(size) for name, size in SIZES.items()})


def _loss(model: Any) -> Any:
    import tf_keras

    return tf_keras.losses.MeanSquaredError()


TASK = Task(
    name="regression",
    metric=Metric("mean_absolute_error", higher_is_better=False, compute=mean_absolute_error),
    loss=_loss,
    fit_metrics=lambda: ["mae"],
    check=check_targets,
    data=synthetic_data,
)
