"""Magnitude pruning (Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878) on TFMOT's schedules."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf
import tf_keras

from collabopt.components.engine.compression.kernels import claims_of, trainable_kernels
from collabopt.components.engine.compression.wrapping import KernelWrapper, unwrap_kernels, wrap_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import PruningSettings

# Share of the steps in which a polynomial schedule reaches its target; the rest lets the network recover.
_RAMP_SHARE = 0.5
_FIRST_STEP = 1


def prune(
    model: Any, settings: PruningSettings, train_samples: int, fit: Callable[[Any, Sequence[Any]], None]
) -> tuple[Any, Claims]:
    """Prunes every compressible layer that is not frozen, while fine-tuning.

    Args:
        model: A plain tf_keras model; changed in place, so load it afresh for every stage.
        settings: Target, schedule and training settings.
        train_samples: Size of the train split, which sets the length of the schedule.
        fit: Called with the wrapped model and the callbacks it needs; trains it in place.

    Returns:
        The model with zeros in its kernels, and what it may now claim.

    Raises:
        CollaboptError: Nothing in the model can be pruned.
    """
    return _prune(model, lambda wrapped: fit(wrapped, [_MaskUpdates(make_schedule(settings, train_samples))]))


def prune_at_once(model: Any, sparsity: float) -> tuple[Any, Claims]:
    """Prunes as `prune` does, without training: masks the smallest weights and leaves the others as they are.

    Args:
        model: A plain tf_keras model; changed in place.
        sparsity: Share of weights that become zero in every pruned layer.

    Returns:
        The model with zeros in its kernels, and what it may now claim.

    Raises:
        CollaboptError: Nothing in the model can be pruned.
    """
    return _prune(model, lambda wrapped: _mask_smallest(wrapped, sparsity))


def make_schedule(settings: PruningSettings, train_samples: int) -> Any:
    """TFMOT's schedule for these settings.

    Masks are updated at `begin_step` plus multiples of the frequency. TFMOT counts the first training step as 1, so
    schedules begin there: from 0, a run shorter than the frequency would prune nothing. The polynomial schedule ends
    on such a step too; otherwise its last update would fall short of the target.
    """
    import tensorflow_model_optimization as tfmot

    total_steps = settings.epochs * math.ceil(train_samples / settings.batch_size)
    if settings.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(
            settings.target_sparsity, begin_step=_FIRST_STEP, frequency=settings.frequency_steps
        )
    ramp_steps = max(1, int(total_steps * _RAMP_SHARE))
    frequency = min(settings.frequency_steps, ramp_steps)
    return tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=settings.initial_sparsity,
        final_sparsity=settings.target_sparsity,
        begin_step=_FIRST_STEP,
        end_step=_FIRST_STEP + ramp_steps - ramp_steps % frequency,
        frequency=frequency,
    )


def _prune(model: Any, impose: Callable[[Any], None]) -> tuple[Any, Claims]:
    """Wraps what can be pruned, lets `impose` see to the masks, and keeps the outcome."""
    names = trainable_kernels(model)
    if not names:
        raise CollaboptError(
            "the model has no layer that can be pruned",
            todo="it needs Dense or convolution layers with weights that are not frozen",
        )
    wrapped = wrap_kernels(model, dict.fromkeys(names, _MaskedKernel))
    impose(wrapped)
    unwrap_kernels(wrapped, model)
    return model, claims_of(model, pruned=names, clustered=())


class _MaskedKernel(KernelWrapper):
    """Multiplies the kernel with a mask, so that what is masked neither counts nor learns."""

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        self.mask = self.add_weight("mask", self.kernel.shape, initializer="ones", trainable=False)

    def imposed_kernel(self) -> tf.Tensor:
        return self.kernel * self.mask

    def prune_to(self, sparsity: float) -> None:
        """Masks the smallest weights, and sets them to zero lest they come back with a magnitude they had before."""
        kernel = self.imposed_kernel().numpy()
        mask = _mask_of_largest(kernel, sparsity)
        self.mask.assign(mask)
        self.kernel.assign(kernel * mask)


class _MaskUpdates(tf_keras.callbacks.Callback):
    """Updates all masks of a model before the steps that the schedule names.

    In Python instead of in the graph, where the sorts of every layer made the first step of stock pruning more than
    twice as long as that of quantization-aware training.
    """

    def __init__(self, schedule: Any) -> None:
        """Takes one of TFMOT's pruning schedules."""
        super().__init__()
        self._schedule = schedule
        self._step = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        is_due, sparsity = self._schedule(self._step)
        if is_due:
            _mask_smallest(self.model, float(sparsity))


def _mask_smallest(wrapped: Any, sparsity: float) -> None:
    for layer in wrapped.layers:
        if isinstance(layer, _MaskedKernel):
            layer.prune_to(sparsity)


def _mask_of_largest(kernel: np.ndarray, sparsity: float) -> np.ndarray:
    """1 for the weights of largest magnitude, 0 for the given share of others.

    The count is rounded as TFMOT rounds it, in single precision, and at least one weight stays: a layer of no weights
    would cut the network. Among equal magnitudes some are taken, so that the share is met, which TFMOT's threshold
    does not do.
    """
    kept = max(1, int(np.rint(np.float32(kernel.size) * (1 - np.float32(sparsity)))))
    mask = np.zeros(kernel.size, kernel.dtype)
    mask[np.argpartition(np.abs(kernel).reshape(-1), kernel.size - kept)[kernel.size - kept :]] = 1
    return mask.reshape(kernel.shape)
