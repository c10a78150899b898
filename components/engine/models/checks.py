"""Whether a model can go down the tree, and whether it fits the data: found out before hours of training."""

from collections import Counter
from typing import TYPE_CHECKING, Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.graph import read_tf_keras

if TYPE_CHECKING:
    from collabopt.components.engine.datasets.store import DatasetSpec


_WITHOUT_INT8_KERNEL = ("Conv3D", "Conv3DTranspose")


def check_model(model: Any, *, allow_lambda: bool = False) -> None:
    """Refuses a model that no technique of the tree could work on.

    Args:
        model: A tf_keras model.
        allow_lambda: Accept Lambda layers.

    Raises:
        CollaboptError: More than one input or output, another dtype than float32, NaN or infinite weights, a Lambda
            layer, a shared BatchNormalization, a layer without an int8 kernel, a recurrent one, nothing to compress, or
            a subclassed model; the message names the layer.
    """
    graph = read_tf_keras(model)
    _check_ends(model)
    layers = _layers_of(model)
    for layer in layers:
        _check_dtype(layer)
        _check_weights(layer)
        if type(layer).__name__ == "Lambda" and not allow_lambda:
            raise CollaboptError(
                f"layer '{layer.name}' is a Lambda: it holds code instead of a config",
                where=f"layer '{layer.name}'",
                todo="replace it by Keras layers, or set allow_lambda",
            )
    _check_batch_normalization(Counter(id(call.layer) for call in graph.calls), layers)
    _check_deployable(layers)
    _check_compressible(model, layers)


def check_fits(model: Any, spec: "DatasetSpec") -> None:
    """Refuses data that the model cannot take.

    A dimension that the model leaves open takes any length; `pin_input_shape` then fixes it.

    Args:
        model: A tf_keras model with one input.
        spec: Element spec of the data set.

    Raises:
        CollaboptError: The shapes differ; the message shows both.
    """
    expected, given = tuple(model.input_shape[1:]), tuple(spec.feature_shape)
    if len(expected) == len(given) and all(want in (None, have) for want, have in zip(expected, given, strict=True)):
        return
    raise CollaboptError(
        f"the model takes inputs of shape {expected}, but the data have shape {given} a sample",
        where=f"model '{model.name}', data {spec.source}",
        todo="pass the data the model was trained on; for images, set image_height, image_width and image_channels",
    )


def _layers_of(model: Any) -> list[Any]:
    """All layers, those inside wrappers and nested models too."""
    import tf_keras

    return [part for part in model.submodules if isinstance(part, tf_keras.layers.Layer)]


def _check_ends(model: Any) -> None:
    for count, name in ((len(model.inputs), "inputs"), (len(model.outputs), "outputs")):
        if count != 1:
            raise CollaboptError(
                f"the model has {count} {name}; exactly one is supported",
                where=f"model '{model.name}'",
                todo=f"cut the model down to the one of its {name} that you deploy",
            )
    dtype = model.inputs[0].dtype.name
    if dtype != "float32":
        raise CollaboptError(
            f"the model takes {dtype} inputs; only float32 is supported",
            where=f"model '{model.name}'",
            todo="give it a float32 Input; scale and offset of load_dataset bring data into its range",
        )


def _check_dtype(layer: Any) -> None:
    # Layers without weights, such as an input cast to float, carry no policy that matters.
    kinds = {layer.compute_dtype, layer.variable_dtype} | {weight.dtype.name for weight in layer.trainable_weights}
    other = sorted(str(kind) for kind in kinds if kind not in (None, "float32"))
    if other:
        raise CollaboptError(
            f"layer '{layer.name}' computes or stores weights in {', '.join(other)}; only float32 is supported",
            where=f"layer '{layer.name}', dtype policy {layer.dtype_policy.name}",
            todo="build the model again with the dtype policy float32, load the trained weights into it and save it",
        )


def _check_weights(layer: Any) -> None:
    for weight in layer.weights:
        values = weight.numpy()
        if np.issubdtype(values.dtype, np.floating) and not np.isfinite(values).all():
            bad = int(values.size - np.isfinite(values).sum())
            raise CollaboptError(
                f"layer '{layer.name}' has NaN or infinite weights: {bad} of {values.size} in {weight.name}",
                where=f"layer '{layer.name}'",
                todo="the training diverged; import a checkpoint from before, or train with a lower learning rate",
            )


def _check_batch_normalization(calls: Counter[int], layers: list[Any]) -> None:
    import tf_keras

    for layer in layers:
        if isinstance(layer, tf_keras.layers.BatchNormalization) and calls[id(layer)] > 1:
            raise CollaboptError(
                f"BatchNormalization '{layer.name}' is applied {calls[id(layer)]} times; quantization-aware training "
                "cannot fold it into several convolutions",
                where=f"layer '{layer.name}'",
                todo="give every path a BatchNormalization of its own, or fold it into the convolution before it",
            )


def _check_deployable(layers: list[Any]) -> None:
    import tf_keras

    for layer in layers:
        # The converter ends the process on some (GRU), and no stage compresses the weights of the others.
        if isinstance(layer, tf_keras.layers.RNN):
            raise CollaboptError(
                f"layer '{layer.name}' is a {type(layer).__name__}; recurrent layers are not supported",
                where=f"layer '{layer.name}'",
                todo="replace it, for example by causal Conv1D layers with growing dilation",
            )
        if type(layer).__name__ in _WITHOUT_INT8_KERNEL:
            raise CollaboptError(
                f"layer '{layer.name}' is a {type(layer).__name__}, for which TensorFlow Lite has no int8 kernel: its "
                "weights would stay in float in every leaf",
                where=f"layer '{layer.name}'",
                todo="replace it, for example by 2-D convolutions over slices",
            )


def _check_compressible(model: Any, layers: list[Any]) -> None:
    import tf_keras

    keras_layers = tf_keras.layers
    kinds = (
        *(keras_layers.Conv1D, keras_layers.Conv2D, keras_layers.Dense),
        *(keras_layers.DepthwiseConv1D, keras_layers.DepthwiseConv2D),
        *(keras_layers.SeparableConv1D, keras_layers.SeparableConv2D),
    )
    if not any(isinstance(layer, kinds) for layer in layers):
        raise CollaboptError(
            "the model has no convolution and no Dense layer: there is nothing to compress",
            where=f"model '{model.name}'",
            todo="check that this is the model you mean",
        )
