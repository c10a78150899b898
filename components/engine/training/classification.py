"""The default task: one label per sample, integer classes; a single output unit means two classes."""

import functools
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.training.task import Metric, Task


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Top-1 accuracy.

    Args:
        outputs: `[n, classes]` scores, or `[n, 1]` for class 1 of two: probabilities, or logits if any of them is
            outside `[0, 1]`.
        labels: `[n]` or `[n, 1]` class indices.
    """
    if outputs.shape[-1] == 1:
        is_probability = outputs.min() >= 0 and outputs.max() <= 1
        predicted = outputs[:, 0] > (0.5 if is_probability else 0.0)
    else:
        predicted = outputs.argmax(axis=-1)
    return float(np.mean(predicted == labels.reshape(-1)))


def check_labels(labels: np.ndarray, output_shape: tuple[int, ...]) -> None:
    """Refuses labels that are not integers in `[0, classes)`, `[n]` or `[n, 1]`.

    Args:
        labels: Labels of one split.
        output_shape: Shape of the model's output without the batch: `(classes,)`, or `(1,)` for two classes.

    Raises:
        CollaboptError: Labels of another shape, type or range, or an output that is no vector.
    """
    if len(output_shape) != 1:
        raise CollaboptError(
            f"classification needs one vector of scores a sample, but the model's output has shape {output_shape}",
            todo="give the model a flat output, or supply a task of your own",
        )
    classes = max(2, output_shape[-1])
    if labels.shape[1:] not in ((), (1,)):
        looks_one_hot = labels.shape[1:] == (classes,)
        raise CollaboptError(
            f"labels must be one class index a sample, but have shape {labels.shape[1:]} a sample"
            + (", as one-hot labels have" if looks_one_hot else ""),
            todo="store class indices instead, labels.argmax(axis=-1)"
            if looks_one_hot
            else "store class indices; for anything else supply a task of your own",
        )
    if labels.dtype.kind not in "iu":
        raise CollaboptError(
            f"labels must be integers, but have type {labels.dtype}",
            todo="store class indices, for example labels.astype('int64'); for regression supply a task of your own",
        )
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise CollaboptError(
            f"labels are out of range: found {low}..{high}, but the model has {classes} classes (0..{classes - 1})",
            todo="check that data and model belong together, and that classes are counted from 0",
        )


def _loss(model: Any) -> Any:
    import tf_keras

    activation = _output_activation(model)
    if model.output_shape[-1] == 1:
        return tf_keras.losses.BinaryCrossentropy(from_logits=activation != "sigmoid")
    return tf_keras.losses.SparseCategoricalCrossentropy(from_logits=activation != "softmax")


def _distillation(model: Any) -> Any:
    from collabopt.components.engine.training.distillation import soft_cross_entropy

    wanted = "sigmoid" if model.output_shape[-1] == 1 else "softmax"
    return functools.partial(soft_cross_entropy, from_logits=_output_activation(model) != wanted)


def _output_activation(model: Any) -> str:
    """Name of the activation that the model ends in, seen through layers that leave values as they are."""
    import tf_keras

    layers = tf_keras.layers
    tensor = model.outputs[0]
    while True:
        layer = tensor.node.layer
        if isinstance(layer, tf_keras.Model):
            tensor = layer.outputs[tensor._keras_history.tensor_index]
            continue
        is_linear = isinstance(layer, layers.Activation) and layer.activation is tf_keras.activations.linear
        if not (is_linear or isinstance(layer, layers.Flatten | layers.Reshape | layers.Dropout)):
            break
        tensor = tensor.node.keras_inputs[0]
    if isinstance(layer, layers.Softmax):
        return "softmax"
    function = getattr(layer, "symbol", "") or getattr(getattr(layer, "activation", None), "__name__", "")
    return str(function).rsplit(".", maxsplit=1)[-1].removesuffix("_v2")


TASK = Task(
    name="classification",
    metric=Metric("accuracy", higher_is_better=True, compute=accuracy, proportion=True),
    loss=_loss,
    fit_metrics=lambda: ["accuracy"],
    check=check_labels,
    distillation=_distillation,
)
