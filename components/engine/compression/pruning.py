"""Magnitude pruning (Zhu & Gupta 2017, https://arxiv.org/abs/1710.01878) by TFMOT's `prune_low_magnitude`."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import PruningSettings

# Share of the steps in which a polynomial schedule reaches its target; the rest lets the network recover.
_RAMP_SHARE = 0.5
_FIRST_STEP = 1


def prune(model: Any, settings: PruningSettings, train_samples: int, fit: Callable[[Any, Sequence[Any]], None]) -> Any:
    """Prunes every compressible layer while fine-tuning.

    Args:
        model: A plain tf_keras model; its own layers are trained, so load it afresh for every stage.
        settings: Target, schedule and training settings.
        train_samples: Size of the train split, which sets the length of the schedule.
        fit: Called with the wrapped model and the callbacks it needs; trains it in place.

    Returns:
        The plain model with zeros in its kernels.

    Raises:
        CollaboptError: Nothing in the model can be pruned.
    """
    import tensorflow_model_optimization as tfmot
    import tf_keras

    names = compressible_kernels(model)
    if not names:
        raise CollaboptError(
            "the model has no layer that can be pruned", todo="it needs Dense or convolution layers with weights"
        )
    schedule = make_schedule(settings, train_samples)

    def wrap(layer: Any) -> Any:
        if layer.name not in names:
            return layer
        return tfmot.sparsity.keras.prune_low_magnitude(layer, pruning_schedule=schedule)

    wrapped = tf_keras.models.clone_model(model, clone_function=wrap)
    fit(wrapped, [tfmot.sparsity.keras.UpdatePruningStep()])
    return tfmot.sparsity.keras.strip_pruning(wrapped)


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
