"""Whether a deployed file still holds what its ancestors have won: read from its bytes, layer by layer."""

from collections.abc import Iterator, Mapping

import numpy as np

from collabopt.components.engine.deployed.layers import DeployedKernel, find_kernels
from collabopt.components.engine.deployed.weights import StoredWeights, read_weights
from collabopt.components.engine.records import BrokenLayer, Claims, Contract

_FLOAT_TYPES = ("float16", "float32", "bfloat16")


def check_contract(
    tflite: bytes, claims: Claims, parent: Mapping[str, np.ndarray], trained: Mapping[str, np.ndarray] | None = None
) -> Contract:
    """Holds a deployed file to the claims that its stage has to keep.

    In every layer of `claims.zero_positions`, all weights that are zero in the parent must be zero in the file; in
    every layer of `claims.clusters`, the file's tensor, or each output channel of it (`claims.palette`), must have no
    more distinct values than claimed. No convolution or fully connected layer may keep its weights in float.

    Args:
        tflite: The flatbuffer.
        claims: What this leaf has to keep.
        parent: Layer name -> kernel of the fp32 parent, as `kernels_as_deployed` gives them.
        trained: The same after quantization-aware training; it only helps to recognise the tensors.

    Returns:
        Which layers were checked, and for every broken one what is wrong with it.
    """
    tensors = read_weights(tflite)
    claimed = claims.zero_positions.keys() | claims.clusters.keys()
    kernels = trained or parent
    deployed = find_kernels(tensors, kernels)
    broken = [
        BrokenLayer(layer=_layer_of(tensor, deployed), what=f"weights are {tensor.dtype}")
        for tensor in tensors
        if tensor.dtype in _FLOAT_TYPES
    ]
    for layer in (*(name for name in kernels if name in claimed), *sorted(claimed - kernels.keys())):
        found = [kernel for kernel in deployed if kernel.layer == layer]
        if not found:
            broken.append(BrokenLayer(layer=layer, what="its weights are not to be found in the file"))
        for kernel in found:
            broken += [BrokenLayer(layer=layer, what=what) for what in _breaches(kernel, claims, parent[layer])]
    return Contract(layers=sorted(claimed), broken=broken)


def _layer_of(tensor: StoredWeights, deployed: list[DeployedKernel]) -> str:
    return next((kernel.layer for kernel in deployed if kernel.tensor is tensor), tensor.name)


def _breaches(deployed: DeployedKernel, claims: Claims, parent: np.ndarray) -> Iterator[str]:
    stored = deployed.tensor.channels
    if deployed.layer in claims.zero_positions:
        zeros = parent == 0
        lost = int(np.sum(stored[zeros] != deployed.tensor.zero_point))
        if lost:
            yield f"{lost:,} of {int(zeros.sum()):,} zeros are lost"
    if deployed.layer in claims.clusters:
        allowed = claims.clusters[deployed.layer]
        if claims.palette == "tensor":
            distinct, where = len(np.unique(stored)), "in the tensor"
        else:
            distinct, where = max(len(np.unique(channel)) for channel in stored), "on an output channel"
        if distinct > allowed:
            yield f"{distinct} distinct values {where}, {allowed} are allowed"
