"""A quantize scheme that keeps zeros and palettes, layer by layer, whatever surrounds the layer.

TFMOT's own preserving schemes share one quantizer among all layers of a kind, are by-passed wherever a transform
presets a layer's configuration (a convolution before a separate ReLU, or one that feeds a Concatenate), and re-split a
palette made for a whole tensor into one per output channel. Here every kernel gets a quantizer of its own, installed
after all transforms, and built from the kernel itself: what is zero stays zero, what is equal stays equal.
"""

from typing import Any

import tensorflow as tf
from tensorflow_model_optimization.python.core.quantization.keras import quantize_config, quantize_wrapper, quantizers
from tensorflow_model_optimization.python.core.quantization.keras.default_8bit import (
    default_8bit_quantize_layout_transform,
    default_8bit_quantize_registry,
    default_8bit_quantize_scheme,
)

from collabopt.components.engine.compression.structure import Structure

# Layers whose kernel is multiplied with activations after TFMOT's transforms, which split a SeparableConv2D into a
# DepthwiseConv2D and a Conv2D. Depthwise kernels are neither pruned nor clustered.
_PRESERVED_LAYERS = ("Conv2D", "Conv2DTranspose", "Dense")


class PreservingScheme(default_8bit_quantize_scheme.Default8BitQuantizeScheme):
    """TFMOT's 8-bit scheme with a preserving quantizer on every kernel."""

    def __init__(self, *, sparse: bool, clustered: bool) -> None:
        """Chooses what to keep.

        Args:
            sparse: Keep zeros at their places.
            clustered: Keep equal weights equal, and quantize the kernel with one scale for all channels, so that the
                palette of the deployed tensor has no more entries than that of the kernel.
        """
        super().__init__()
        self._sparse = sparse
        self._clustered = clustered

    def get_layout_transformer(self) -> "_PreservingTransform":
        """TFMOT's transforms, followed by ours."""
        return _PreservingTransform(self._sparse, self._clustered)


def settle(model: Any) -> None:
    """Writes what was kept into the kernels themselves, and sets the ranges to theirs; call after training."""
    for layer in model.layers:
        if isinstance(layer, quantize_wrapper.QuantizeWrapperV2):
            for kernel, quantizer, variables in layer._weight_vars:
                if isinstance(quantizer, _PreservingQuantizer):
                    quantizer.settle(kernel, variables)


class _PreservingQuantizer(quantizers.Quantizer):
    """Keeps a kernel's structure, then quantizes as TFMOT's quantizer for that layer does."""

    def __init__(self, base: Any, structure: Structure, *, one_scale: bool) -> None:
        self._base = base
        self._structure: Structure | None = structure
        self._one_scale = one_scale and getattr(base, "per_axis", False)

    def build(self, tensor_shape: Any, name: str, layer: Any) -> Any:
        return self._base.build(tensor_shape, name, layer)

    def __call__(self, inputs: tf.Tensor, training: bool, weights: Any, **kwargs: Any) -> tf.Tensor:
        kernel = inputs if self._structure is None else self._structure.apply(inputs)
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
    """A layer's configuration after TFMOT's transforms, with another quantizer for its kernel."""

    def __init__(self, base: Any, quantizer: _PreservingQuantizer) -> None:
        self._base = base
        self._quantizer = quantizer

    def get_weights_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return [(layer.kernel, self._quantizer)]

    def set_quantize_weights(self, layer: Any, quantize_weights: list[Any]) -> None:
        layer.kernel = quantize_weights[0]

    def get_activations_and_quantizers(self, layer: Any) -> list[tuple[Any, Any]]:
        return self._base.get_activations_and_quantizers(layer)

    def set_quantize_activations(self, layer: Any, quantize_activations: list[Any]) -> None:
        self._base.set_quantize_activations(layer, quantize_activations)

    def get_output_quantizers(self, layer: Any) -> list[Any]:
        return self._base.get_output_quantizers(layer)

    def get_config(self) -> dict[str, Any]:
        """Empty: a quantized model is converted, never reloaded."""
        return {}


class _PreservingTransform(default_8bit_quantize_layout_transform.Default8BitQuantizeLayoutTransform):
    def __init__(self, sparse: bool, clustered: bool) -> None:
        self._sparse = sparse
        self._clustered = clustered

    def apply(self, model: Any, layer_quantize_map: dict[str, dict[str, Any]]) -> tuple[Any, dict[str, dict[str, Any]]]:
        model, layer_quantize_map = super().apply(model, layer_quantize_map)
        registry = default_8bit_quantize_registry.Default8BitQuantizeRegistry()
        for layer in model.layers:
            if type(layer).__name__ not in _PRESERVED_LAYERS or layer.name not in layer_quantize_map:
                continue
            usual = registry.get_quantize_config(layer)
            ((_, quantizer),) = usual.get_weights_and_quantizers(layer)
            structure = Structure.of(layer.kernel.numpy(), sparse=self._sparse, clustered=self._clustered)
            preset = layer_quantize_map[layer.name].get("quantize_config")
            layer_quantize_map[layer.name]["quantize_config"] = _PreservingConfig(
                preset or usual, _PreservingQuantizer(quantizer, structure, one_scale=self._clustered)
            )
        return model, layer_quantize_map
