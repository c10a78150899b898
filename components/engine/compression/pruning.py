"""Magnitude pruning (Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878) on TFMOT's schedules."""

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Literal

import numpy as np
import tensorflow as tf
import tf_keras

from collabopt.components.engine.compression.kernels import claims_of, trainable_kernels
from collabopt.components.engine.compression.wrapping import KernelWrapper, unwrap_kernels, wrap_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_patterns import settings_by_layer
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import LayerPruning, PruningSettings

# Share of the steps in which a polynomial schedule reaches its target; the rest lets the network recover.
_RAMP_SHARE = 0.5
_FIRST_STEP = 1


def prune(
    model: Any, settings: PruningSettings, train_samples: int, fit: Callable[[Any, Sequence[Any]], None]
) -> tuple[Any, Claims]:
    """Prunes every compressible layer that is neither frozen nor excluded, while fine-tuning.

    Args:
        model: A plain tf_keras model; changed in place, so load it afresh for every stage.
        settings: Target, schedule and training settings.
        train_samples: Size of the train split, which sets the length of the schedule.
        fit: Called with the wrapped model and the callbacks it needs; trains it in place.

    Returns:
        The model with zeros in its kernels, and what it may now claim.

    Raises:
        CollaboptError: Nothing in the model can be pruned, or a pattern matches no layer that can.
    """
    targets = target_sparsities(model, settings)
    schedules = {name: make_schedule(settings, target, train_samples) for name, target in targets.items()}
    return _prune(model, targets, lambda wrapped: fit(wrapped, [_MaskUpdates(schedules)]))


def prune_at_once(model: Any, settings: PruningSettings) -> tuple[Any, Claims]:
    """Prunes as `prune` does, without training: masks the smallest weights and leaves the others as they are.

    Args:
        model: A plain tf_keras model; changed in place.
        settings: Targets.

    Returns:
        The model with zeros in its kernels, and what it may now claim.

    Raises:
        CollaboptError: Nothing in the model can be pruned, or a pattern matches no layer that can.
    """
    targets = target_sparsities(model, settings)
    return _prune(model, targets, lambda wrapped: _mask_smallest(wrapped, targets))


def target_sparsities(model: Any, settings: PruningSettings) -> dict[str, float]:
    """What every layer that is to be pruned is pruned to: its own target, or that of all.

    Args:
        model: A plain tf_keras model.
        settings: Targets.

    Returns:
        Layer -> share of its weights, without layers that are left dense.

    Raises:
        CollaboptError: Nothing in the model can be pruned, or is to be, or a pattern matches no layer that can.
    """
    names = trainable_kernels(model)
    if not names:
        raise CollaboptError(
            "the model has no layer that can be pruned",
            todo="it needs Dense or convolution layers with weights that are not frozen",
        )
    own = settings_by_layer(settings.layers, names, "pruned")
    targets = {name: _target(own.get(name), settings.target_sparsity) for name in names}
    if not any(targets.values()):
        raise CollaboptError(
            "the settings leave every layer dense, so nothing is pruned",
            where="layers",
            todo="prune one layer at least, or leave the pruning stages out for this model",
        )
    return {name: target for name, target in targets.items() if target}


def _target(own: LayerPruning | Literal["exclude"] | None, of_all: float) -> float:
    if own is None:
        return of_all
    return own.target_sparsity if isinstance(own, LayerPruning) else 0.0


def make_schedule(settings: PruningSettings, target_sparsity: float, train_samples: int) -> Any:
    """TFMOT's schedule for a layer of this target.

    Masks are updated at `begin_step` plus multiples of the frequency. TFMOT counts the first training step as 1, so
    schedules begin there: from 0, a run shorter than the frequency would prune nothing. The polynomial schedule ends
    on such a step too; otherwise its last update would fall short of the target.
    """
    import tensorflow_model_optimization as tfmot

    total_steps = settings.epochs * math.ceil(train_samples / settings.batch_size)
    if settings.schedule == "constant":
        return tfmot.sparsity.keras.ConstantSparsity(
            target_sparsity, begin_step=_FIRST_STEP, frequency=settings.frequency_steps
        )
    ramp_steps = max(1, int(total_steps * _RAMP_SHARE))
    frequency = min(settings.frequency_steps, ramp_steps)
    return tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=settings.initial_sparsity,
        final_sparsity=target_sparsity,
        begin_step=_FIRST_STEP,
        end_step=_FIRST_STEP + ramp_steps - ramp_steps % frequency,
        frequency=frequency,
    )


def _prune(model: Any, names: Collection[str], impose: Callable[[Any], None]) -> tuple[Any, Claims]:
    """Wraps what is pruned, lets `impose` see to the masks, and keeps the outcome."""
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
        mask = mask_of_largest(kernel, sparsity)
        self.mask.assign(mask)
        self.kernel.assign(kernel * mask)


class _MaskUpdates(tf_keras.callbacks.Callback):
    """Updates the masks of a model before the steps that their schedules name.

    In Python instead of in the graph, where the sorts of every layer made the first step of stock pruning more than
    twice as long as that of quantization-aware training.
    """

    def __init__(self, schedules: Mapping[str, Any]) -> None:
        """Takes one of TFMOT's pruning schedules for every layer."""
        super().__init__()
        self._schedules = schedules
        self._step = 0

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._step += 1
        planned = {name: schedule(self._step) for name, schedule in self._schedules.items()}
        _mask_smallest(self.model, {name: float(sparsity) for name, (is_due, sparsity) in planned.items() if is_due})


def _mask_smallest(wrapped: Any, sparsities: Mapping[str, float]) -> None:
    for name, sparsity in sparsities.items():
        wrapped.get_layer(name).prune_to(sparsity)


def mask_of_largest(kernel: np.ndarray, sparsity: float) -> np.ndarray:
    """1 for the weights of largest magnitude, 0 for the given share of others.

    The count is rounded as TFMOT rounds it, in single precision, and at least one weight stays: a layer of no weights
    would cut the network. Among equal magnitudes some are taken, so that the share is met, which TFMOT's threshold
    does not do.
    """
    kept = max(1, int(np.rint(np.float32(kernel.size) * (1 - np.float32(sparsity)))))
    mask = np.zeros(kernel.size, kernel.dtype)
    mask[np.argpartition(np.abs(kernel).reshape(-1), kernel.size - kept)[kernel.size - kept :]] = 1
    return mask.reshape(kernel.shape)
