"""Reads what a `.tflite` really holds: sizes, operators, the values in its weight buffers, and what the rest is for."""

import hashlib
import io
import math
import zipfile
from collections import Counter
from collections.abc import Mapping

import numpy as np

from collabopt.components.engine.deployed.contents import contents_of
from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage
from collabopt.components.engine.deployed.float_operators import FLOAT_TYPES, float_operators, float_reasons
from collabopt.components.engine.deployed.layer_name import layer_of
from collabopt.components.engine.deployed.packing import Deflated, Packed, deflate, pack_opened
from collabopt.components.engine.deployed.weights import StoredWeights, weights_of
from collabopt.components.engine.records import TFLITE_FILE, DeployedModel, DeployedTensor

# Reports are compared after a second inspection, maybe on a machine whose libm rounds the last digit differently.
_ENTROPY_DIGITS = 6


def inspect_tflite(tflite: bytes) -> DeployedModel:
    """Inspects a flatbuffer; of several subgraphs, the weights and operators of the first.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    return inspect_and_pack(tflite)[0]


def inspect_and_pack(tflite: bytes) -> tuple[DeployedModel, bytes]:
    """Inspects a flatbuffer and hands on its packed form, which its figures need anyway.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    opened = open_flatbuffer(tflite)
    weights = weights_of(opened)
    packed = pack_opened(opened, weights)
    return _inspect(opened, weights, packed), packed.content


def _inspect(opened: Flatbuffer, weights: list[StoredWeights], packed: Packed) -> DeployedModel:
    tflite = opened.tflite
    tensors = [_describe(tensor, packed.weights[tensor.index]) for tensor in weights]
    contents = contents_of(opened, weights)
    return DeployedModel(
        sha256=hashlib.sha256(tflite).hexdigest(),
        tflite_bytes=len(tflite),
        gzip_bytes=packed.gzip_bytes,
        zip_bytes=_zip_bytes(tflite),
        packed_bytes=len(packed.content),
        **_interface(opened),
        operators=dict(sorted(Counter(name for name, _ in opened.operators).items())),
        float_operators=[name for name, _ in float_operators(opened)],
        weights=tensors,
        float_reasons=float_reasons(opened),
        float_weights=[tensor.name for tensor in tensors if tensor.dtype in FLOAT_TYPES],
        weight_bytes=len(contents["weights"]),
        weight_entropy_bytes=math.ceil(math.fsum(t.entropy_bits * math.prod(t.shape) / 8 for t in tensors)),
        weight_packed_bytes=sum(tensor.packed_bytes for tensor in tensors),
        weight_deflated_bytes=packed.weight_deflated_bytes,
        contents={category: len(content) for category, content in contents.items()},
        contents_deflated=_deflated_contents(contents, packed),
    )


def _interface(opened: Flatbuffer) -> dict[str, str]:
    with refusing_damage():
        ends = {"input_dtype": opened.graph.inputs, "output_dtype": opened.graph.outputs}
        return {
            name: opened.dtype(opened.graph.tensors[indices[0]]) if len(indices) else ""
            for name, indices in ends.items()
        }


def _describe(weights: StoredWeights, deflated: Deflated) -> DeployedTensor:
    return DeployedTensor(
        name=weights.name,
        op=weights.op,
        dtype=weights.dtype,
        shape=list(weights.values.shape),
        zero_fraction=float(np.mean(weights.values == weights.zero_point)),
        distinct_values=len(np.unique(weights.values)),
        max_distinct_values_per_channel=max(len(np.unique(channel)) for channel in weights.channels),
        channel_axis=weights.channel_axis,
        layer=next(filter(None, (layer_of(name, weights.op) for name in (weights.name, *weights.names_nearby))), ""),
        quantization_axis=weights.quantization_axis,
        scales=weights.scales.tolist(),
        entropy_bits=round(weights.entropy_bits, _ENTROPY_DIGITS),
        stored_bytes=weights.stored_bytes,
        deflated_bytes=deflated.zlib_bytes,
        packed_bytes=len(deflated.shortest),
    )


def _deflated_contents(contents: Mapping[str, bytes], packed: Packed) -> dict[str, int]:
    """Every category on its own, and within the weights every tensor."""
    rest = {name: content for name, content in contents.items() if name != "weights"}
    deflated = {name: deflate(content).zlib_bytes if content else 0 for name, content in rest.items()}
    return {"weights": packed.weight_deflated_bytes, **deflated}


def _zip_bytes(tflite: bytes) -> int:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TFLITE_FILE, tflite)
    return len(packed.getvalue())
