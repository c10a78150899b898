"""A Keras model as a flat list of layer calls: nested models dissolved, whichever Keras it was written in.

Both readers give the same `Graph`, so that flattening a tf_keras model and rebuilding a Keras 3 model are one walk.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError

INPUTS = -1


@dataclass(frozen=True)
class TensorRef:
    """A tensor of a graph.

    Attributes:
        call: Index of the call that gives it; `INPUTS` for the graph's own inputs.
        output: Which of the call's outputs it is.
    """

    call: int
    output: int


@dataclass(frozen=True)
class Call:
    """One application of a layer. A layer that is applied twice is the same object in two calls.

    Attributes:
        layer: The layer, or the Keras 3 operation, of the model that was read.
        path: Names of the nested models it lies in, outermost first.
        args: Positional arguments, with a `TensorRef` where a tensor goes.
        kwargs: Keyword arguments, likewise.
        name: Name of the layer in the flat model, unique there.
    """

    layer: Any
    path: tuple[str, ...]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    name: str = ""


@dataclass(frozen=True)
class GraphInput:
    """An input of a graph.

    Attributes:
        name: Name of the input layer.
        shape: Shape without the batch axis; None where unknown.
        dtype: Name of the type.
    """

    name: str
    shape: tuple[int | None, ...]
    dtype: str


@dataclass(frozen=True)
class Graph:
    """A flat model.

    Attributes:
        name: Name of the model.
        inputs: Its inputs, in order.
        calls: Its calls, each after those it depends on.
        outputs: Its outputs, in order.
    """

    name: str
    inputs: tuple[GraphInput, ...]
    calls: tuple[Call, ...]
    outputs: tuple[TensorRef, ...]


def read_tf_keras(model: Any) -> Graph:
    """Reads a built Sequential or Functional tf_keras model.

    Raises:
        CollaboptError: The model, or one nested in it, is not built or is a subclass with a `call` of its own.
    """
    return _read(model, _inline_tf_keras)


def read_keras3(model: Any) -> Graph:
    """Reads a built Sequential or Functional Keras 3 model from its public config.

    Raises:
        CollaboptError: The model, or one nested in it, is not built or is a subclass with a `call` of its own.
    """
    return _read(model, _inline_keras3)


def walk(
    graph: Graph, inputs: Iterable[Any], apply: Callable[[Call, tuple[Any, ...], dict[str, Any]], Any]
) -> list[Any]:
    """Runs a graph on symbolic or real tensors.

    Args:
        graph: What to run.
        inputs: One tensor for every input.
        apply: (call, its arguments, its keyword arguments) -> the outputs, nested as the layer gives them.

    Returns:
        One tensor for every output.
    """
    import tensorflow as tf

    values = {TensorRef(INPUTS, index): tensor for index, tensor in enumerate(inputs)}
    for index, call in enumerate(graph.calls):
        args = map_refs(values.__getitem__, call.args)
        kwargs = map_refs(values.__getitem__, dict(call.kwargs))
        for output, tensor in enumerate(tf.nest.flatten(apply(call, args, kwargs))):
            values[TensorRef(index, output)] = tensor
    return [values[reference] for reference in graph.outputs]


def map_refs(function: Callable[[TensorRef], Any], value: Any) -> Any:
    """Replaces every `TensorRef` in nested lists, tuples and dicts."""
    return _map_leaves(lambda leaf: function(leaf) if isinstance(leaf, TensorRef) else leaf, value)


def _map_leaves(function: Callable[[Any], Any], value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _map_leaves(function, item) for key, item in value.items()}
    if isinstance(value, list):
        return [_map_leaves(function, item) for item in value]
    if isinstance(value, tuple):
        return tuple(_map_leaves(function, item) for item in value)
    return function(value)


def _refs_in(value: Any) -> list[TensorRef]:
    found: list[TensorRef] = []
    map_refs(found.append, value)
    return found


def _read(model: Any, inline: Callable[[list[Call], Any, list[TensorRef], tuple[str, ...]], list[TensorRef]]) -> Graph:
    _check_readable(model)
    calls: list[Call] = []
    inputs = tuple(_graph_input(tensor) for tensor in model.inputs)
    outputs = inline(calls, model, [TensorRef(INPUTS, index) for index in range(len(inputs))], ())
    return Graph(model.name, inputs, _named(calls, {item.name for item in inputs}), tuple(outputs))


def _graph_input(tensor: Any) -> GraphInput:
    dtype = tensor.dtype if isinstance(tensor.dtype, str) else tensor.dtype.name
    return GraphInput(tensor.name.partition(":")[0], tuple(tensor.shape)[1:], dtype)


def _check_readable(model: Any) -> None:
    if getattr(model, "inputs", None) and getattr(model, "outputs", None):
        return
    raise CollaboptError(
        f"model '{model.name}' ({type(model).__name__}) is not a graph of layers: it is a subclassed model, or it has "
        "never been built",
        where=f"model '{model.name}'",
        todo="write it as a Sequential or Functional model with an Input of known shape, and save it again",
    )


def _named(calls: list[Call], taken: set[str]) -> tuple[Call, ...]:
    """Gives every layer a unique name: its own where it is free, outer layers first, else prefixed with its model's."""
    names: dict[int, str] = {}
    for call in sorted(calls, key=lambda call: len(call.path)):
        if id(call.layer) in names:
            continue
        name, path = call.layer.name, list(call.path)
        while name in taken and path:
            name = f"{path.pop()}_{name}"
        base, number = name, 1
        while name in taken:
            name, number = f"{base}_{number}", number + 1
        taken.add(name)
        names[id(call.layer)] = name
    return tuple(replace(call, name=names[id(call.layer)]) for call in calls)


def _inline_tf_keras(
    calls: list[Call], model: Any, arguments: list[TensorRef], path: tuple[str, ...]
) -> list[TensorRef]:
    import tensorflow as tf
    import tf_keras

    references = {id(tensor): reference for tensor, reference in zip(model.inputs, arguments, strict=True)}

    def refer(value: Any) -> Any:
        return references.get(id(value), value)

    for node in _nodes_in_order(model):
        args = _map_leaves(refer, tuple(node.call_args))
        kwargs = {key: _map_leaves(refer, value) for key, value in node.call_kwargs.items()}
        if isinstance(node.layer, tf_keras.Model):
            _check_readable(node.layer)
            inner_path = (*path, node.layer.name)
            outputs = _inline_tf_keras(calls, node.layer, _refs_in((args, kwargs)), inner_path)
        else:
            calls.append(Call(node.layer, path, args, kwargs))
            outputs = [TensorRef(len(calls) - 1, index) for index in range(len(tf.nest.flatten(node.outputs)))]
        references.update(
            {id(tensor): output for tensor, output in zip(tf.nest.flatten(node.outputs), outputs, strict=True)}
        )
    return [references[id(tensor)] for tensor in model.outputs]


def _nodes_in_order(model: Any) -> list[Any]:
    """Every node (layer call) that the outputs need, after the nodes it needs itself."""
    inputs = {id(tensor) for tensor in model.inputs}
    ordered: list[Any] = []
    done: set[int] = set()
    stack = [tensor.node for tensor in reversed(model.outputs) if id(tensor) not in inputs]
    while stack:
        node = stack[-1]
        needed = [tensor.node for tensor in node.keras_inputs if id(tensor) not in inputs]
        missing = [parent for parent in needed if id(parent) not in done]
        if missing:
            stack.extend(reversed(missing))
            continue
        stack.pop()
        if id(node) not in done:
            done.add(id(node))
            ordered.append(node)
    return ordered


def _inline_keras3(calls: list[Call], model: Any, arguments: list[TensorRef], path: tuple[str, ...]) -> list[TensorRef]:
    import keras

    if isinstance(model, keras.Sequential):
        current = arguments[0]
        for layer in model.layers:
            current = _refer_output(_call_keras3(calls, layer, (current,), {}, path), 0)
        return [current]

    config = model.get_config()
    operations = {operation.name: operation for operation in model.operations}
    # (layer name, index of its call) -> what gives its outputs
    givers: dict[tuple[str, int], int | list[TensorRef]] = {}
    for (name, index, _), reference in zip(_tensor_keys(config["input_layers"]), arguments, strict=True):
        givers[(name, index)] = [reference]
    pending = [
        (layer["name"], index, node) for layer in config["layers"] for index, node in enumerate(layer["inbound_nodes"])
    ]
    while pending:
        waiting = []
        for name, index, node in pending:
            if any(key[:2] not in givers for key in _tensor_keys(node)):
                waiting.append((name, index, node))
                continue
            args, kwargs = tuple(_decode(node["args"], givers)), _decode(node["kwargs"], givers)
            givers[(name, index)] = _call_keras3(calls, operations[name], args, kwargs, path)
        if len(waiting) == len(pending):
            raise CollaboptError(
                f"the graph of model '{model.name}' does not connect: {sorted({name for name, _, _ in waiting})}",
                where=f"model '{model.name}'",
                todo="save the model again with the Keras that made it",
            )
        pending = waiting
    outputs = []
    for name, index, output in _tensor_keys(config["output_layers"]):
        # Here alone, unlike in `inbound_nodes`, Keras counts the calls of a nested Functional model from one.
        operation = operations[name]
        is_nested = isinstance(operation, keras.Model) and not isinstance(operation, keras.Sequential)
        outputs.append(_refer_output(givers[(name, index - 1 if is_nested else index)], output))
    return outputs


def _call_keras3(
    calls: list[Call], layer: Any, args: tuple[Any, ...], kwargs: dict[str, Any], path: tuple[str, ...]
) -> int | list[TensorRef]:
    """Appends one call, or those of a nested model: the call's index, or the nested model's outputs."""
    import keras

    if isinstance(layer, keras.Model):
        _check_readable(layer)
        return _inline_keras3(calls, layer, _refs_in((args, kwargs)), (*path, layer.name))
    given = {key: value for key, value in kwargs.items() if value is not None}
    calls.append(Call(layer, path, args, given))
    return len(calls) - 1


def _refer_output(giver: int | list[TensorRef], output: int) -> TensorRef:
    return giver[output] if isinstance(giver, list) else TensorRef(giver, output)


def _tensor_keys(config: Any) -> list[tuple[str, int, int]]:
    """Every (layer name, call, output) that a piece of a Keras 3 config refers to, dicts in the order of their keys."""
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            name, node, output = config["config"]["keras_history"]
            return [(name, node, output)]
        return [key for name in sorted(config) for key in _tensor_keys(config[name])]
    if isinstance(config, (list, tuple)):
        if len(config) == 3 and isinstance(config[0], str) and all(isinstance(item, int) for item in config[1:]):
            return [(config[0], config[1], config[2])]
        return [key for item in config for key in _tensor_keys(item)]
    return []


def _decode(config: Any, givers: Mapping[tuple[str, int], int | list[TensorRef]]) -> Any:
    if isinstance(config, dict):
        if config.get("class_name") == "__keras_tensor__":
            name, node, output = config["config"]["keras_history"]
            return _refer_output(givers[(name, node)], output)
        if config.get("class_name") in ("__numpy__", "__tensor__"):
            return np.array(config["config"]["value"], dtype=config["config"]["dtype"])
        return {key: _decode(value, givers) for key, value in config.items()}
    if isinstance(config, (list, tuple)):
        return [_decode(item, givers) for item in config]
    return config
