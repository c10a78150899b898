"""Training a plain fp32 model with something imposed on its kernels: ties, or a mask.

The model is copied, and in the copy a wrapper of its own computes each kernel anew in every step. TFMOT's wrappers for
pruning and clustering train the layers of the model they are given, build sorts and look-ups into the graph, and refuse
frozen layers; this one leaves all of that to what is imposed.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow as tf
import tf_keras

from collabopt.components.engine.compression.kernels import KERNEL_ATTRIBUTES


class KernelWrapper(tf_keras.layers.Wrapper):
    """Runs a layer with another tensor in place of its kernel; says nothing of which.

    A regularizer of the kernel acts on the imposed tensor.
    """

    def __init__(self, layer: Any) -> None:
        """Wraps a layer that is not built yet, under its name."""
        super().__init__(layer, name=layer.name, trainable=layer.trainable)
        self._attribute = KERNEL_ATTRIBUTES[type(layer).__name__]
        self.supports_masking = layer.supports_masking
        self._take_over_regularizer()

    @property
    def kernel(self) -> Any:
        """The layer's own kernel variable."""
        return getattr(self.layer, self._attribute)

    def imposed_kernel(self) -> tf.Tensor:
        """What the layer computes with in place of its kernel."""
        raise NotImplementedError

    def call(self, inputs: Any) -> Any:
        """What the layer computes with the imposed kernel."""
        with self._imposed():
            return self.layer(inputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """As the layer has it."""
        return self.layer.compute_output_shape(input_shape)

    @contextlib.contextmanager
    def _imposed(self) -> Iterator[None]:
        # Past Keras's `__setattr__`, which would take the kernel from the layer's variables.
        attributes, kernel = self.layer.__dict__, self.kernel
        attributes[self._attribute] = self.imposed_kernel()
        try:
            yield
        finally:
            attributes[self._attribute] = kernel

    def _take_over_regularizer(self) -> None:
        name = f"{self._attribute.removesuffix('_kernel')}_regularizer"
        regularizer = getattr(self.layer, name)
        if regularizer is not None:
            setattr(self.layer, name, None)
            self.add_loss(lambda: regularizer(self.imposed_kernel()))


def wrap_kernels(model: Any, wrappers: Mapping[str, Callable[[Any], KernelWrapper]]) -> Any:
    """Copies a plain model, with wrappers around some of its layers.

    Args:
        model: A plain flat tf_keras model.
        wrappers: Layer name -> what wraps the copy of that layer, which has no weights yet.

    Returns:
        The copy, with the model's weights and layer names.
    """

    def copy(layer: Any) -> Any:
        copied = type(layer).from_config(layer.get_config())
        return wrappers[layer.name](copied) if layer.name in wrappers else copied

    wrapped = tf_keras.models.clone_model(model, clone_function=copy)
    for layer in model.layers:
        _unwrapped(wrapped.get_layer(layer.name)).set_weights(layer.get_weights())
    return wrapped


def unwrap_kernels(wrapped: Any, model: Any) -> Any:
    """Writes what a wrapped copy has learned back into the plain model that it was made of.

    Args:
        wrapped: As `wrap_kernels` returns it, trained.
        model: The plain model; changed in place.

    Returns:
        `model`, whose kernels are what was imposed.
    """
    for layer in model.layers:
        trained = wrapped.get_layer(layer.name)
        if isinstance(trained, KernelWrapper):
            # Adding zero turns -0.0, which a negative weight leaves behind under a mask, into 0.0.
            trained.kernel.assign(trained.imposed_kernel() + 0.0)
        layer.set_weights(_unwrapped(trained).get_weights())
    return model


def _unwrapped(layer: Any) -> Any:
    return layer.layer if isinstance(layer, KernelWrapper) else layer
