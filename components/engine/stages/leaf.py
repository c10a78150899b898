"""How a leaf comes about: quantized, converted, given its palettes, and held to its contract."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import Claims, Contract
from collabopt.components.engine.settings import PostTrainingQuantizationSettings, QuantizationAwareTrainingSettings
from collabopt.components.engine.stages.work import Work


@dataclass(frozen=True)
class Leaf:
    """A file to deploy.

    Attributes:
        tflite: The flatbuffer.
        contract: What it kept of its ancestors' claims.
    """

    tflite: bytes
    contract: Contract


def post_training_quantize(work: Work, settings: PostTrainingQuantizationSettings, claims: Claims) -> Leaf:
    """Quantizes the parent without training; ranges come from the calibration split.

    Args:
        work: Parent, data and task.
        settings: How many samples to calibrate with.
        claims: What the file has to keep.
    """
    return quantize_untrained(work.load_parent(), work.data, settings.representative_samples, claims)


def quantize_untrained(model: Any, data: StoredDataset, samples: int, claims: Claims) -> Leaf:
    """The leaf of a model whose weights stay as they are.

    Args:
        model: A plain tf_keras model.
        data: The data set; ranges come from its calibration split.
        samples: How many samples to calibrate with.
        claims: What the file has to keep.
    """
    from collabopt.components.engine.deployed.layers import kernels_as_deployed

    kernels = kernels_as_deployed(model)
    return _finished(_calibrated(data, samples, model, claims), claims, kernels, kernels)


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
        tflite = _calibrated(work.data, settings.representative_samples, model, claims)
    return _finished(tflite, claims, parent, kernels_as_deployed(model))


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


def _calibrated(data: StoredDataset, samples: int, model: Any, claims: Claims) -> bytes:
    from collabopt.components.engine.deployed.convert import to_int8
    from collabopt.components.engine.deployed.normalization import keep_out_of_kernels

    def representative() -> Iterator[list[Any]]:
        return data.representative(samples)

    return to_int8(keep_out_of_kernels(model, claims.clusters), representative)


def _finished(
    tflite: bytes, claims: Claims, parent: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray]
) -> Leaf:
    """Gives clustered tensors one palette where conversion has split it, and checks the outcome.

    Conversion splits palettes after post-training quantization, and after training that of a layer that is called
    twice.
    """
    from collabopt.components.engine.deployed.contract import check_contract
    from collabopt.components.engine.deployed.palette import restore_palettes
    from collabopt.components.engine.deployed.slim import slim

    if claims.palette == "tensor":
        clustered = {name: kernel for name, kernel in trained.items() if name in claims.clusters}
        tflite = restore_palettes(tflite, clustered)
    tflite = slim(tflite)
    return Leaf(tflite, check_contract(tflite, claims, parent, trained))
