"""Quantization-aware training (Jacob et al. 2018, https://arxiv.org/abs/1712.05877), plain and preserving."""

from collections.abc import Callable, Sequence
from typing import Any

from collabopt.components.engine.compression.kernels import KERNEL_ATTRIBUTES
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import Claims

# Layers after which TFMOT folds a BatchNormalization.
_FOLDING = ("Conv2D", "DepthwiseConv2D", "Dense")


def quantize_aware(model: Any, stage: str, claims: Claims, fit: Callable[[Any, Sequence[Any]], None]) -> Any:
    """Fine-tunes a model with fake quantization.

    Layers that TFMOT cannot quantize (Multiply, Rescaling, Conv1D, operators on tensors, ...) are trained in float and
    get their ranges on conversion, from calibration data.

    Args:
        model: A plain tf_keras model.
        stage: Name of the stage, for error messages.
        claims: What is to be kept of it; empty for plain quantization-aware training.
        fit: Called with the quantized model and the callbacks it needs; trains it in place.

    Returns:
        The model with quantization ranges. It cannot be trained further once saved: TFMOT reloads it with its plain
        quantizers, which preserve nothing.

    Raises:
        CollaboptError: A layer that TFMOT cannot quantize; the message names it.
    """
    import tensorflow_model_optimization as tfmot

    from collabopt.components.engine.compression.preserving import PreservingScheme, freeze, settle

    try:
        quantized = tfmot.quantization.keras.quantize_apply(_annotated(model), PreservingScheme(claims))
    except (RuntimeError, ValueError) as error:
        raise CollaboptError(
            f"quantization-aware training cannot take this model: {_first_sentence(error)}",
            where=f"stage '{stage}'{_named_layer(model, error)}",
            todo="replace the layer; only post_training_quantize takes the model as it is",
        ) from error
    freeze(quantized)
    fit(quantized, [])
    settle(quantized)
    return quantized


def trained_weights(quantized: Any, plain: Any) -> Any:
    """Copies what quantization-aware training has learned into the plain model that it started from.

    Args:
        quantized: As `quantize_aware` returns it.
        plain: The tf_keras model that was given to it; changed in place.

    Returns:
        `plain`.
    """
    learned = {weight.name: weight for weight in quantized.weights}
    for weight in plain.weights:
        weight.assign(learned[weight.name])
    return plain


def _annotated(model: Any) -> Any:
    import tensorflow_model_optimization as tfmot
    import tf_keras

    def annotate(layer: Any) -> Any:
        # TFMOT never wraps a layer without annotation that feeds an annotated one; kernels need the wrapper to be kept.
        wanted = _is_quantizable(layer) or type(layer).__name__ in KERNEL_ATTRIBUTES
        return tfmot.quantization.keras.quantize_annotate_layer(layer) if wanted else layer

    return tf_keras.models.clone_model(model, clone_function=annotate)


def _is_quantizable(layer: Any) -> bool:
    """Whether TFMOT's 8-bit scheme takes a layer where it stands."""
    from collabopt.components.engine.compression.preserving import Registry

    if type(layer).__name__ == "BatchNormalization":
        sources = _sources(layer)
        return len(sources) == 1 and _folds_into(sources[0])
    return Registry().supports(layer)


def _folds_into(layer: Any) -> bool:
    """Whether a BatchNormalization after this layer becomes part of it."""
    return (
        type(layer).__name__ in _FOLDING
        and _is_quantizable(layer)
        and layer.activation.__name__ == "linear"
        and len(layer.outbound_nodes) == 1
    )


def _sources(layer: Any) -> list[Any]:
    """Layers whose outputs a layer takes, over all its calls."""
    import tensorflow as tf

    return [source for node in layer.inbound_nodes for source in tf.nest.flatten(node.inbound_layers)]


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0][:300]


def _named_layer(model: Any, error: Exception) -> str:
    text = str(error)
    for layer in model.layers:
        if f"{layer.name}:" in text or f"{type(layer)}" in text or f"'{layer.name}'" in text:
            return f", layer '{layer.name}' ({type(layer).__name__})"
    return ""
