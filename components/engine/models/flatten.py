"""One flat functional graph out of any Sequential or Functional tf_keras model."""

from collections.abc import Callable, Sequence
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.graph import Call, Graph, read_tf_keras, walk


def flatten_model(model: Any) -> Any:
    """Dissolves nested models, which TFMOT can neither quantize nor prune layer by layer.

    Names stay unique: a layer inside a nested model keeps its name unless that clashes, and is then prefixed with the
    nested model's name. A layer that is applied more than once stays one layer, because that is what TFMOT handles:
    pruning, clustering and quantization-aware training (0.8.1) all take a shared Conv2D, Dense or ReLU and keep it
    shared, while a copy for every path would double the weights and let fine-tuning drive the copies apart. The one
    exception is a shared BatchNormalization, which quantization-aware training cannot fold; `check_model` refuses it.

    A `training` argument given to a nested model does not reach its layers: it decides only how fine-tuning treats
    dropout and batch statistics, and fine-tuning here treats all layers alike.

    Args:
        model: A built Sequential or Functional model.

    Returns:
        The model itself if nothing is nested in it and its batch size is free, else a new Functional model with the
        same weights and predictions.

    Raises:
        CollaboptError: A nested model is a subclass with a `call` of its own.
    """
    import tf_keras

    nested = any(isinstance(layer, tf_keras.Model) for layer in model.layers)
    batch_is_fixed = any(tensor.shape[0] is not None for tensor in model.inputs or [])
    return clone_flat(model) if nested or batch_is_fixed else model


def pin_input_shape(model: Any, feature_shape: tuple[int, ...]) -> Any:
    """Gives a model whose height, width or length is open the shape of the data; TFLite needs static shapes.

    Args:
        model: A built Sequential or Functional model with one input.
        feature_shape: Shape of one sample.

    Returns:
        The model itself if its input shape is known, else a copy with the given one and equal weights.

    Raises:
        CollaboptError: The model does not work at that shape.
    """
    if None not in model.input_shape[1:]:
        return model
    try:
        return clone_flat(model, tuple(feature_shape))
    except CollaboptError as error:
        raise CollaboptError(
            f"model '{model.name}' takes inputs of shape {tuple(model.input_shape[1:])}, but does not work on data of "
            f"shape {tuple(feature_shape)}: {error}",
            where=f"model '{model.name}'",
            todo="resize the data, or save the model with a fixed input shape",
        ) from error


def clone_flat(model: Any, input_shape: tuple[int, ...] | None = None) -> Any:
    """Copies a tf_keras model into a new flat Functional model with equal weights.

    Args:
        model: A built Sequential or Functional model.
        input_shape: Shape of the only input without the batch axis; None keeps what the model has.
    """
    graph = read_tf_keras(model)
    shapes = [item.shape for item in graph.inputs] if input_shape is None else [input_shape]
    copies: dict[int, Any] = {}

    def copy(call: Call) -> Any:
        if id(call.layer) not in copies:
            copies[id(call.layer)] = type(call.layer).from_config({**call.layer.get_config(), "name": call.name})
        return copies[id(call.layer)]

    flat = assemble(graph, copy, shapes)
    for call in graph.calls:
        copies[id(call.layer)].set_weights(call.layer.get_weights())
    return flat


def assemble(graph: Graph, layer_for: Callable[[Call], Any], shapes: Sequence[tuple[int | None, ...]]) -> Any:
    """Builds a tf_keras Functional model from a graph; weights are those that the layers come with.

    Args:
        graph: What to build.
        layer_for: Call -> what to apply on tf_keras tensors; the same layer for every call of a shared one.
        shapes: Shape of every input, without the batch axis.

    Raises:
        CollaboptError: A layer does not work on what it is given; the message names it.
    """
    import tf_keras

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            return layer_for(call)(*args, **kwargs)
        except (ValueError, TypeError, AttributeError, NotImplementedError) as error:
            raise CollaboptError(
                f"layer '{call.name}' ({type(call.layer).__name__}) does not work in tf_keras on its inputs: {error}",
                where=f"layer '{call.name}'",
                todo="check the layer's options and the shape of its inputs",
            ) from error

    inputs = [
        tf_keras.Input(shape=shape, dtype=item.dtype, name=item.name)
        for item, shape in zip(graph.inputs, shapes, strict=True)
    ]
    outputs = walk(graph, inputs, apply)
    single_in, single_out = len(inputs) == 1, len(outputs) == 1
    return tf_keras.Model(inputs[0] if single_in else inputs, outputs[0] if single_out else outputs, name=graph.name)
