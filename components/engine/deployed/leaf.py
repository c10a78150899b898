"""A leaf's file: converted, given its palettes, slimmed, and held to its contract."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from collabopt.components.engine.records import Claims, Contract

# Yields `[1, ...]` float32 input batches, which set the ranges of activations.
Representative = Callable[[], Iterator[list[Any]]]


@dataclass(frozen=True)
class Leaf:
    """A file to deploy.

    Attributes:
        tflite: The flatbuffer.
        contract: What it kept of its ancestors' claims.
    """

    tflite: bytes
    contract: Contract


def quantize_untrained(model: Any, representative: Representative, claims: Claims) -> Leaf:
    """The leaf of a model whose weights stay as they are.

    Args:
        model: A plain tf_keras model.
        representative: Sets the ranges of activations.
        claims: What the file has to keep.
    """
    from collabopt.components.engine.deployed.layers import kernels_as_deployed

    kernels = kernels_as_deployed(model)
    return finished(calibrated(model, representative, claims), claims, kernels, kernels)


def calibrated(model: Any, representative: Representative, claims: Claims) -> bytes:
    """Converts to int8 with ranges from calibration.

    Args:
        model: A plain tf_keras model.
        representative: Sets the ranges of activations.
        claims: What the file has to keep: normalizations stay out of clustered kernels.
    """
    from collabopt.components.engine.deployed.convert import to_int8
    from collabopt.components.engine.deployed.normalization import keep_out_of_kernels

    return to_int8(keep_out_of_kernels(model, claims.clusters), representative)


def finished(
    tflite: bytes, claims: Claims, parent: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray]
) -> Leaf:
    """Gives clustered tensors one palette where conversion has split it, and checks the outcome.

    Conversion splits palettes after post-training quantization, and after training that of a layer that is called
    twice.

    Args:
        tflite: The flatbuffer as converted.
        claims: What it has to keep.
        parent: Layer -> the fp32 kernel that the claims are about, as `kernels_as_deployed` gives it.
        trained: The same, of the model that was converted.
    """
    from collabopt.components.engine.deployed.contract import check_contract
    from collabopt.components.engine.deployed.palette import restore_palettes
    from collabopt.components.engine.deployed.slim import slim

    if claims.palette == "tensor":
        clustered = {name: kernel for name, kernel in trained.items() if name in claims.clusters}
        tflite = restore_palettes(tflite, clustered)
    tflite = slim(tflite)
    return Leaf(tflite, check_contract(tflite, claims, parent, trained))
