"""Rewrites an accepted model into the form that every technique takes, without changing what it computes."""

from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from collabopt.components.engine.models.flatten import assemble, clone_flat
from collabopt.components.engine.models.graph import Call, Graph, TensorRef, map_refs, read_tf_keras

_SPLIT_INTO = {"SeparableConv1D": ("DepthwiseConv1D", "Conv1D"), "SeparableConv2D": ("DepthwiseConv2D", "Conv2D")}
# Options that both halves have from the separable layer, and those that only the depthwise half has.
_OF_BOTH = ("data_format", "trainable", "dtype")
_OF_DEPTHWISE = (
    *("kernel_size", "strides", "padding", "dilation_rate", "depth_multiplier"),
    *("depthwise_initializer", "depthwise_regularizer", "depthwise_constraint"),
)
_OF_POINTWISE = (
    *("filters", "activation", "use_bias", "activity_regularizer"),
    *("bias_initializer", "bias_regularizer", "bias_constraint"),
)

# Layer that a BatchNormalization behind it is folded into -> its kernel.
_FOLDING = {
    "Conv1D": "kernel",
    "Conv1DTranspose": "kernel",
    "Conv2D": "kernel",
    "Conv2DTranspose": "kernel",
    "Dense": "kernel",
    "DepthwiseConv1D": "depthwise_kernel",
    "DepthwiseConv2D": "depthwise_kernel",
}


def canonical_form(model: Any) -> Any:
    """Rewrites what techniques would otherwise have to know as special cases.

    A separable convolution becomes a depthwise and a 1x1 convolution, `<name>_depthwise` and `<name>_pointwise`: TFMOT
    prunes, clusters and quantizes its two kernels only where they are two layers.

    A BatchNormalization that is folded into the layer before it gets no negative gamma; the layer's output channel and
    the moving mean change their sign instead. Folding multiplies every output channel by a factor, and one palette for
    the whole deployed tensor needs positive factors: it would otherwise hold values together with their negatives. A
    constraint keeps training from turning them again.

    Args:
        model: A flat, built tf_keras model.

    Returns:
        The model itself if it needs no rewriting, else a new one with the same predictions. The constraint takes
        effect when the model is built from its config, as every stage does that loads it.
    """
    canonical = _with_positive_gammas(_with_separables_split(model))
    _keep_gammas_positive(canonical)
    return canonical


def _with_separables_split(model: Any) -> Any:
    graph = read_tf_keras(model)
    taken = {item.name for item in graph.inputs} | {call.name for call in graph.calls}
    separables = {id(call.layer): call for call in graph.calls if _is_splittable(call.layer)}
    if not separables:
        return model
    chains = {key: _chain(call, taken) for key, call in separables.items()}
    for call in graph.calls:
        if id(call.layer) not in chains:
            copy = type(call.layer).from_config({**call.layer.get_config(), "name": call.name})
            chains[id(call.layer)] = [copy]

    def apply(call: Call) -> Any:
        first, *rest = chains[id(call.layer)]

        def through(*args: Any, **kwargs: Any) -> Any:
            outputs = first(*args, **kwargs)
            for layer in rest:
                outputs = layer(outputs)
            return outputs

        return through

    rewritten = assemble(graph, apply, [item.shape for item in graph.inputs])
    for call in graph.calls:
        _share_out(call.layer.get_weights(), chains[id(call.layer)])
    return rewritten


def _is_splittable(layer: Any) -> bool:
    """Whether a layer is a separable convolution that Keras can express as two; all are but one odd kind."""
    if type(layer).__name__ not in _SPLIT_INTO:
        return False
    # ZeroPadding1D, which stands for causal padding, knows channels_last only. TFLite does not take the other anyway.
    return not (layer.padding == "causal" and layer.data_format == "channels_first")


def _chain(call: Call, taken: set[str]) -> list[Any]:
    """The layers that do what a separable one does, unbuilt; their weights are its own, in the same order."""
    from tf_keras import layers

    config = call.layer.get_config()
    depthwise, pointwise = (getattr(layers, name) for name in _SPLIT_INTO[type(call.layer).__name__])
    both = {name: config[name] for name in _OF_BOTH}
    first = {name: config[name] for name in _OF_DEPTHWISE}
    padding = []
    if config["padding"] == "causal":
        before = config["dilation_rate"][0] * (config["kernel_size"][0] - 1)
        padding = [layers.ZeroPadding1D((before, 0), name=_free_name(f"{call.name}_padding", taken))]
        first["padding"] = "valid"
    second = {
        **{name: config[name] for name in _OF_POINTWISE},
        **{f"kernel_{part}": config[f"pointwise_{part}"] for part in ("initializer", "regularizer", "constraint")},
    }
    return [
        *padding,
        depthwise.from_config(
            {**both, **first, "use_bias": False, "name": _free_name(f"{call.name}_depthwise", taken)}
        ),
        pointwise.from_config(
            {**both, **second, "kernel_size": 1, "name": _free_name(f"{call.name}_pointwise", taken)}
        ),
    ]


def _free_name(wanted: str, taken: set[str]) -> str:
    name, number = wanted, 1
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    taken.add(name)
    return name


def _share_out(weights: list[np.ndarray], chain: list[Any]) -> None:
    for layer in chain:
        count = len(layer.weights)
        layer.set_weights(weights[:count])
        weights = weights[count:]


def _with_positive_gammas(model: Any) -> Any:
    if not any(_negative(normalization).any() for _, normalization in _folded_pairs(read_tf_keras(model))):
        return model
    flipped = clone_flat(model)
    for layer, normalization in _folded_pairs(read_tf_keras(flipped)):
        signs = np.where(_negative(normalization), -1, 1).astype(np.float32)
        _flip(layer, signs)
        normalization.gamma.assign(np.abs(normalization.gamma.numpy()))
        normalization.moving_mean.assign(normalization.moving_mean.numpy() * signs)
    return flipped


def _keep_gammas_positive(model: Any) -> None:
    import tf_keras

    for _, normalization in _folded_pairs(read_tf_keras(model)):
        if normalization.scale and normalization.gamma_constraint is None:
            normalization.gamma_constraint = tf_keras.constraints.NonNeg()


def _folded_pairs(graph: Graph) -> Iterator[tuple[Any, Any]]:
    """Every (layer, BatchNormalization that directly follows it) of which neither is used otherwise."""
    calls_of = Counter(id(call.layer) for call in graph.calls)
    readers: Counter[TensorRef] = Counter(graph.outputs)
    for call in graph.calls:
        map_refs(lambda reference: readers.update([reference]), (call.args, dict(call.kwargs)))
    for call in graph.calls:
        source = call.args[0] if call.args else None
        if type(call.layer).__name__ != "BatchNormalization" or not isinstance(source, TensorRef) or source.call < 0:
            continue
        before = graph.calls[source.call].layer
        used_once = calls_of[id(call.layer)] == calls_of[id(before)] == readers[source] == 1
        if used_once and _can_fold(before, call.layer):
            yield before, call.layer


def _can_fold(layer: Any, normalization: Any) -> bool:
    import tf_keras

    if type(layer).__name__ not in _FOLDING or layer.activation is not tf_keras.activations.linear:
        return False
    channels_first = getattr(layer, "data_format", "channels_last") == "channels_first"
    channel_axis = 1 if channels_first else normalization.input_spec.ndim - 1
    constraints = [getattr(layer, f"{part}_constraint", None) for part in ("kernel", "depthwise", "bias")]
    must_stay_positive = any(isinstance(constraint, tf_keras.constraints.NonNeg) for constraint in constraints)
    return list(normalization.axis) == [channel_axis] and not must_stay_positive


def _negative(normalization: Any) -> np.ndarray:
    return normalization.gamma.numpy() < 0 if normalization.scale else np.zeros(1, bool)


def _flip(layer: Any, signs: np.ndarray) -> None:
    """Multiplies the output channels of a layer by 1 or -1."""
    kind = type(layer).__name__
    kernel = getattr(layer, _FOLDING[kind])
    by_channel = signs
    if kind.startswith("Depthwise"):
        by_channel = signs.reshape(kernel.shape[-2:])
    elif kind.endswith("Transpose"):
        by_channel = signs[:, np.newaxis]
    # Adding zero turns the negative zeros of pruned weights into plain ones.
    kernel.assign(kernel.numpy() * by_channel + 0)
    if layer.use_bias:
        layer.bias.assign(layer.bias.numpy() * signs)
