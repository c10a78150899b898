"""Quantization-aware training (Jacob et al. 2018, https://arxiv.org/abs/1712.05877), plain and preserving."""

from collections.abc import Callable, Sequence
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.techniques import CLUSTERED, SPARSE


def quantize_aware(model: Any, stage: str, preserve: frozenset[str], fit: Callable[[Any, Sequence[Any]], None]) -> Any:
    """Fine-tunes a model with fake quantization.

    Args:
        model: A plain tf_keras model.
        stage: Name of the stage, for error messages.
        preserve: What to keep of it: `sparse`, `clustered`, both or nothing.
        fit: Called with the quantized model and the callbacks it needs; trains it in place.

    Returns:
        The model with quantization ranges, ready for conversion. It cannot be trained further once saved: TFMOT
        reloads it with its plain quantizers, which preserve nothing.

    Raises:
        CollaboptError: A layer that TFMOT cannot quantize; the message names it.
    """
    import tensorflow_model_optimization as tfmot

    from collabopt.components.engine.compression.preserving import settle

    keras = tfmot.quantization.keras
    try:
        quantized = keras.quantize_apply(keras.quantize_annotate_model(model), _scheme(preserve))
    except (RuntimeError, ValueError) as error:
        raise CollaboptError(
            f"quantization-aware training cannot take this model: {_first_sentence(error)}",
            where=f"stage '{stage}'{_named_layer(model, error)}",
            todo="replace the layer; only post_training_quantize takes the model as it is",
        ) from error
    fit(quantized, [])
    if preserve:
        settle(quantized)
    return quantized


def _scheme(preserve: frozenset[str]) -> Any:
    from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import default_8bit_quantize_scheme

    from collabopt.components.engine.compression.preserving import PreservingScheme

    if not preserve:
        return default_8bit_quantize_scheme.Default8BitQuantizeScheme()
    return PreservingScheme(sparse=SPARSE in preserve, clustered=CLUSTERED in preserve)


def _first_sentence(error: Exception) -> str:
    return " ".join(str(error).split()).split(". ")[0][:300]


def _named_layer(model: Any, error: Exception) -> str:
    text = str(error)
    for layer in model.layers:
        if f"{layer.name}:" in text or f"{type(layer)}" in text or f"'{layer.name}'" in text:
            return f", layer '{layer.name}' ({type(layer).__name__})"
    lambdas = [layer.name for layer in model.layers if type(layer).__name__ == "Lambda"]
    return f", layer '{lambdas[0]}' (Lambda)" if lambdas and "Lambda" in text else ""
