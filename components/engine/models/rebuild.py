"""A Keras 3 model, rebuilt in tf_keras layer by layer and proven equal on random input."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.flatten import assemble
from collabopt.components.engine.models.graph import Call, Graph, read_keras3, walk
from collabopt.components.engine.models.translate import REWRITE, lacks_counterpart, translate

# Largest absolute difference that outputs of the rebuilt model may have.
TOLERANCE = 1e-4
# Length in place of an unknown axis, in random input.
UNKNOWN_AXIS_LENGTH = 64
BATCH_SIZE = 2


def rebuild(model: Any, seed: int = 0) -> Any:
    """Rebuilds a Keras 3 model in tf_keras, flat, with the same weights.

    TensorFlow Model Optimization takes tf_keras (Keras 2) models only.

    Args:
        model: A built Sequential or Functional Keras 3 model (TensorFlow backend).
        seed: Seeds the random input on which both models are compared.

    Returns:
        A tf_keras Functional model whose outputs differ from the original's by at most `TOLERANCE`.

    Raises:
        CollaboptError: A layer or operation has no counterpart in tf_keras, or computes something else there; the
            message names it.
    """
    graph = read_keras3(model)
    _check_translatable(graph)
    layers: dict[int, Callable[..., Any]] = {}
    for call in graph.calls:
        if id(call.layer) not in layers:
            layers[id(call.layer)] = translate(call.layer, call.name)
    rebuilt = assemble(graph, lambda call: layers[id(call.layer)], [item.shape for item in graph.inputs])
    for call in graph.calls:
        _copy_weights(call, layers[id(call.layer)])
    _check_layers(graph, layers, seed)
    _check_outputs(model, rebuilt, graph, seed)
    return rebuilt


def _check_translatable(graph: Graph) -> None:
    import keras

    for call in graph.calls:
        if isinstance(call.layer, keras.Layer) and call.layer.dtype_policy.name != "float32":
            raise CollaboptError(
                f"layer '{call.name}' has the dtype policy {call.layer.dtype_policy.name}; only float32 is supported",
                where=f"layer '{call.name}'",
                todo="build the model again under keras.config.set_dtype_policy('float32'), load its weights, save it",
            )
    lacking = [call for call in graph.calls if lacks_counterpart(call.layer)]
    if lacking:
        kinds = {True: "", False: ", an operation"}
        names = sorted(
            {
                f"'{call.name}' ({type(call.layer).__name__}{kinds[isinstance(call.layer, keras.Layer)]})"
                for call in lacking
            }
        )
        raise CollaboptError(
            f"tf_keras, which TensorFlow Model Optimization needs, has no counterpart of {', '.join(names)}",
            where=f"model '{graph.name}'",
            todo=REWRITE,
        )


def _copy_weights(call: Call, layer: Any) -> None:
    weights = call.layer.get_weights() if hasattr(call.layer, "get_weights") else []
    # Normalization's are part of its config, see `translate`.
    if not weights or type(call.layer).__name__ == "Normalization":
        return
    shapes = [weight.shape for weight in weights]
    expected = [tuple(weight.shape) for weight in layer.weights]
    if shapes != expected:
        raise CollaboptError(
            f"layer '{call.name}' ({type(call.layer).__name__}) has weights of shapes {shapes} in Keras 3, but "
            f"{expected} in tf_keras",
            where=f"layer '{call.name}'",
            todo=REWRITE,
        )
    layer.set_weights(weights)


def _random_inputs(graph: Graph, seed: int, batches: int) -> Iterator[list[np.ndarray]]:
    """Batches of random input, by turns uniform in [0, 1) and normal; whole numbers for inputs of such a type."""
    generator = np.random.default_rng(seed)
    for batch in range(batches):
        arrays = []
        for item in graph.inputs:
            shape = (BATCH_SIZE, *(length or UNKNOWN_AXIS_LENGTH for length in item.shape))
            if np.issubdtype(np.dtype(item.dtype), np.integer):
                arrays.append(generator.integers(0, 2, shape).astype(item.dtype))
            elif batch % 2 == 0:
                arrays.append(generator.random(shape).astype(item.dtype))
            else:
                arrays.append(generator.standard_normal(shape).astype(item.dtype))
        yield arrays


def _check_layers(graph: Graph, layers: dict[int, Callable[..., Any]], seed: int) -> None:
    """Feeds every layer and its counterpart the same input, and names the first whose output differs."""
    import tensorflow as tf

    def apply(call: Call, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        expected = call.layer(*args, **kwargs)
        actual = layers[id(call.layer)](*args, **kwargs)
        for reference, value in zip(tf.nest.flatten(expected), tf.nest.flatten(actual), strict=True):
            reference, value = np.asarray(reference), np.asarray(value)
            finite = np.abs(reference[np.isfinite(reference)])
            scale = max(1.0, float(finite.max(initial=0.0)))
            difference = _largest_difference(reference, value)
            if difference > TOLERANCE * scale:
                raise CollaboptError(
                    f"layer '{call.name}' ({type(call.layer).__name__}) computes something else in tf_keras than in "
                    f"Keras 3: outputs differ by up to {difference:.3g}",
                    where=f"layer '{call.name}'",
                    todo=REWRITE,
                )
        return expected

    for inputs in _random_inputs(graph, seed, batches=2):
        walk(graph, [tf.constant(array) for array in inputs], apply)


def _check_outputs(model: Any, rebuilt: Any, graph: Graph, seed: int) -> None:
    import tensorflow as tf

    for inputs in _random_inputs(graph, seed + 1, batches=4):
        fed = inputs[0] if len(inputs) == 1 else inputs
        expected, actual = (tf.nest.flatten(each(fed, training=False)) for each in (model, rebuilt))
        for reference, value in zip(expected, actual, strict=True):
            difference = _largest_difference(np.asarray(reference), np.asarray(value))
            if difference > TOLERANCE:
                raise CollaboptError(
                    f"the model predicts something else in tf_keras than in Keras 3: outputs differ by up to "
                    f"{difference:.3g}, though every layer by itself agrees",
                    where=f"model '{graph.name}'",
                    todo=REWRITE,
                )


def _largest_difference(reference: np.ndarray, value: np.ndarray) -> float:
    """Largest absolute difference; infinite where only one is a number, or where shapes differ."""
    if reference.shape != value.shape:
        return float("inf")
    same = (reference == value) | (np.isnan(reference) & np.isnan(value))
    difference = np.abs(np.where(same, 0.0, reference.astype(np.float64) - value.astype(np.float64)))
    return float(np.nan_to_num(difference, nan=np.inf).max(initial=0.0))
