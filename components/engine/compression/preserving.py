"""A quantize scheme that keeps zeros and palettes, layer by layer, whatever surrounds the layer.

TFMOT's own preserving schemes share one quantizer among all layers of a kind, are by-passed wherever a transform
presets a layer's configuration (a convolution before a separate ReLU, or one that feeds a Concatenate), and re-split a
palette made for a whole tensor into one per output channel. Here every kernel gets a quantizer of its own, installed
after all transforms, and built from the kernel itself: what is zero stays zero, what is equal stays equal. Layers that
TFMOT does not quantize at all, such as Conv1D, keep their structure likewise.
"""

from typing import Any

import tensorflow as tf
from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, quantize_wrapper, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_layout_transform,
    default_8bit_quantize_registry,
    default_8bit_quantize_scheme,
)

from collabopt.components.engine.compression.kernels import KERNEL_ATTRIBUTES, channel_axis
from collabopt.components.engine.compression.structure import Structure
from collabopt.components.engine.records import Claims

# Activation functions that TFMOT 0.8.1 can quantize inside a layer (its QuantizeAwareActivation), and the placeholder
# that its transforms put where the function is quantized with a later layer.
_ACTIVATIONS = frozenset({"linear", "relu", "softmax", "sigmoid", "tanh", "swish", "gelu", "NoOpActivation"})


class PreservingScheme(default_8bit_quantize_scheme.Default8BitQuantizeScheme):
    """TFMOT's 8-bit scheme with a preserving quantizer on every kernel."""

    def __init__(self, claims: Claims) -> None:
        """Chooses what to keep.

        Args:
            claims: What the model has won. Zeros stay in the layers of `zero_positions`, equal weights stay equal in
                those of `clusters`, which are quantized with one scale for all output channels where `palette` is
                `tensor`: then the deployed tensor has no more distinct values than the kernel. Other layers are
                quantized as TFMOT does it.
        """
        super().__init__()
        self._claims = claims

    def get_quantize_registry(self) -> "Registry":
        """TFMOT's registry, which knows of every layer what it can do with it where it stands."""
        return Registry()

    def get_layout_transformer(self) -> "_PreservingTransform":
        """TFMOT's transforms, followed by ours."""
        return _PreservingTransform(self._claims)


class Registry(default_8bit_quantize_registry.Default8BitQuantizeRegistry):
    """TFMOT's registry without layers whose activation function it would refuse only later, by an error."""

    def supports(self, layer: Any) -> bool:
        """Whether the 8-bit scheme quantizes this layer."""
        activation = getattr(layer, "activation", None)
        name = getattr(activation, "__name__", type(activation).__name__)
        return (activation is None or name in _ACTIVATIONS) and super().supports(layer)


def freeze(model: Any) -> None:
    """Keeps kernels of frozen layers as they are: TFMOT's wrapper would train them all the same."""
    for layer in model.layers:
        if isinstance(layer, quantize_wrapper.QuantizeWrapperV2) and not layer.layer.trainable:
            layer._non_trainable_weights.extend(layer._trainable_weights)
            layer._trainable_weights.clear()


def settle(model: Any) -> None:
    """Writes what was kept into the kernels themselves, and sets the ranges to theirs; call after training."""
    for layer in model.layers:
        if isinstance(layer, quantize_wrapper.QuantizeWrapperV2):
            for kernel, quantizer, variables in layer._weight_vars:
                if isinstance(quantizer, _PreservingQuantizer):
                    quantizer.settle(kernel, variables)


class _PreservingQuantizer(quantizers.Quantizer):
    """Keeps a kernel's structure, then quantizes as TFMOT's quantizer for that layer, if it has one, does."""

    def __init__(self, base: Any, structure: Structure, *, one_scale: bool) -> None:
        self._base = base
        self._structure: Structure | None = structure
        self._one_scale = one_scale and getattr(base, "per_axis", False)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
        return {} if self._base is None else self._base.build(tensor_shape, name, layer)

    def __call__(self, inputs: tf.Tensor, training: bool, weights: Any, **kwargs: Any) -> tf.Tensor:
        kernel = inputs if self._structure is None else self._structure.apply(inputs)
        if self._base is None:
            return kernel
        if not self._one_scale:
            return self._base(kernel, training, weights, **kwargs)
        lowest, highest = weights["min_var"], weights["max_var"]
        if training:
            largest = tf.reduce_max(tf.abs(kernel))
            lowest = lowest.assign(tf.fill(lowest.shape, -largest))
            highest = highest.assign(tf.fill(highest.shape, largest))
        return tf.quantization.fake_quant_with_min_max_vars_per_channel(
            kernel, lowest, highest, num_bits=self._base.num_bits, narrow_range=self._base.narrow_range
        )

    def settle(self, kernel: tf.Variable, weights: Any) -> None:
        if self._structure is not None:
            kernel.assign(self._structure.apply(tf.convert_to_tensor(kernel)))
            self._structure = None
        self(tf.convert_to_tensor(kernel), True, weights)

    def get_config(self) -> dict[str, Any]:
        """Empty: a quantized model is converted, never reloaded."""
        return {}


class _PreservingConfig(quantize_config.QuantizeConfig):
    """A layer's configuration after TFMOT's transforms, with another quantizer for its kernel.

    `base` is None for a layer that TFMOT does not quantize: then its kernel keeps its structure, and no more.
    """

    def __init__(self, base: Any, attribute: str, quantizer: _PreservingQuantizer) -> None:
        self._base = base
        self._attribute = attribute
        self._quantizer = quantizer

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return [(getattr(layer, self._attribute), self._quantizer)]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        setattr(layer, self._attribute, quantize_weights[0])

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return [] if self._base is None else self._base.get_activations_and_quantizers(layer)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        if self._base is not None:
            self._base.set_quantize_activations(layer, quantize_activations)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return [] if self._base is None else self._base.get_output_quantizers(layer)

    def get_config(self) -> dict[str, Any]:
        """Empty: a quantized model is converted, never reloaded."""
        return {}


class _PreservingTransform(default_8bit_quantize_layout_transform.Default8BitQuantizeLayoutTransform):
    def __init__(self, claims: Claims) -> None:
        self._claims = claims

    def apply(self, model: Any, layer_quantize_map: dict[str, dict[str, Any]]) -> tuple[Any, dict[str, dict[str, Any]]]:
        model, layer_quantize_map = super().apply(model, layer_quantize_map)
        for layer in model.layers:
            attribute = KERNEL_ATTRIBUTES.get(type(layer).__name__)
            if attribute is None:
                continue
            usual = Registry().get_quantize_config(layer) if Registry().supports(layer) else None
            annotation = layer_quantize_map.get(layer.name, {})
            base = usual and (annotation.get("quantize_config") or usual)
            config = _PreservingConfig(base, attribute, self._quantizer(layer, attribute, usual))
            layer_quantize_map[layer.name] = {**annotation, "quantize_config": config}
        return model, layer_quantize_map

    def _quantizer(self, layer: Any, attribute: str, usual: Any) -> _PreservingQuantizer:
        clustered = layer.name in self._claims.clusters
        structure = Structure.of(
            getattr(layer, attribute).numpy(),
            sparse=layer.name in self._claims.zero_positions,
            clustered=clustered,
            channel_axis=channel_axis(layer) if self._claims.palette == "channel" else None,
        )
        base = None if usual is None else usual.get_weights_and_quantizers(layer)[0][1]
        return _PreservingQuantizer(base, structure, one_scale=clustered and self._claims.palette == "tensor")
