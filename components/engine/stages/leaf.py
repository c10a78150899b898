"""How a leaf comes about: by quantization after training, or by quantization-aware training."""

import functools
from typing import Any

from collabopt.components.engine.deployed.leaf import Leaf, calibrated, finished, quantize_untrained
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import Claims
from collabopt.components.engine.settings import PostTrainingQuantizationSettings, QuantizationAwareTrainingSettings
from collabopt.components.engine.stages.work import Work


def post_training_quantize(work: Work, settings: PostTrainingQuantizationSettings, claims: Claims) -> Leaf:
    """Quantizes the parent without training; ranges come from the calibration split.

    Args:
        work: Parent, data and task.
        settings: How many samples to calibrate with.
        claims: What the file has to keep.
    """
    representative = functools.partial(work.data.representative, settings.representative_samples)
    return quantize_untrained(work.load_parent(), representative, claims)


def quantize_aware_train(work: Work, settings: QuantizationAwareTrainingSettings, claims: Claims) -> Leaf:
    """Fine-tunes the parent with fake quantization and keeps what is claimed of it.

    The file takes its ranges from training. Where TFMOT cannot quantize some layer, that would leave operators in
    float, and around some (an AveragePooling that two layers read) the converter refuses them; then the trained weights
    are converted with ranges from the calibration split instead.

    Args:
        work: Parent, data and task.
        settings: How to train.
        claims: What the file has to keep.
    """
    from collabopt.components.engine.compression.quantization import quantize_aware, trained_weights
    from collabopt.components.engine.deployed.layers import kernels_as_deployed
    from collabopt.components.engine.training.distribution import fine_tuning_strategy

    model = work.load_parent()
    parent = kernels_as_deployed(model)
    with fine_tuning_strategy().scope():
        quantized = quantize_aware(model, work.stage, claims, work.fitting(model, settings))
    trained_weights(quantized, model)
    tflite, why_not = _with_ranges_of_training(quantized)
    if why_not:
        emit(work.stage, "calibrating", reason=why_not)
        representative = functools.partial(work.data.representative, settings.representative_samples)
        tflite = calibrated(model, representative, claims)
    return finished(tflite, claims, parent, kernels_as_deployed(model))


def _with_ranges_of_training(quantized: Any) -> tuple[bytes, str]:
    """The file, or why it cannot be had."""
    from collabopt.components.engine.deployed.convert import ConversionRefused, to_int8
    from collabopt.components.engine.deployed.flatbuffer import open_flatbuffer
    from collabopt.components.engine.deployed.float_operators import float_operators

    try:
        tflite = to_int8(quantized, None)
    except ConversionRefused:
        return b"", "the converter does not take the ranges of training"
    left = float_operators(open_flatbuffer(tflite))
    return tflite, "training has left some layers without ranges" if left else ""
