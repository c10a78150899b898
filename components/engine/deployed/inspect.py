"""Reads what a `.tflite` really holds: sizes, operators, the values in its weight buffers, and what the rest is for."""

import gzip
import hashlib
import io
import math
import zipfile
import zlib
from collections import Counter
from typing import Any

import numpy as np

from collabopt.components.engine.deployed.contents import contents_of
from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage
from collabopt.components.engine.deployed.float_operators import FLOAT_TYPES, float_operators, float_reasons
from collabopt.components.engine.deployed.layer_name import layer_of
from collabopt.components.engine.deployed.packing import pack, shortest_deflate
from collabopt.components.engine.deployed.weights import StoredWeights, weights_of
from collabopt.components.engine.records import TFLITE_FILE, DeployedModel, DeployedTensor

# Reports are compared after a second inspection, maybe on a machine whose libm rounds the last digit differently.
_ENTROPY_DIGITS = 6


def inspect_tflite(tflite: bytes) -> DeployedModel:
    """Inspects a flatbuffer; of several subgraphs, the weights and operators of the first.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    opened = open_flatbuffer(tflite)
    weights = weights_of(opened)
    tensors = [_describe(tensor, opened) for tensor in weights]
    contents = contents_of(opened, weights)
    deflated = {category: _deflated_bytes(content) for category, content in contents.items()}
    return DeployedModel(
        sha256=hashlib.sha256(tflite).hexdigest(),
        tflite_bytes=len(tflite),
        gzip_bytes=len(gzip.compress(tflite, compresslevel=9, mtime=0)),
        zip_bytes=_zip_bytes(tflite),
        packed_bytes=len(pack(tflite)),
        **_interface(opened),
        operators=dict(sorted(Counter(name for name, _ in opened.operators).items())),
        float_operators=[name for name, _ in float_operators(opened)],
        weights=tensors,
        float_reasons=float_reasons(opened),
        float_weights=[tensor.name for tensor in tensors if tensor.dtype in FLOAT_TYPES],
        weight_bytes=len(contents["weights"]),
        weight_entropy_bytes=math.ceil(math.fsum(t.entropy_bits * math.prod(t.shape) / 8 for t in tensors)),
        weight_packed_bytes=sum(tensor.packed_bytes for tensor in tensors),
        weight_deflated_bytes=deflated["weights"],
        contents={category: len(content) for category, content in contents.items()},
        contents_deflated=deflated,
    )


def _interface(opened: Flatbuffer) -> dict[str, str]:
    with refusing_damage():
        ends = {"input_dtype": opened.graph.inputs, "output_dtype": opened.graph.outputs}
        return {
            name: opened.dtype(opened.graph.tensors[indices[0]]) if len(indices) else ""
            for name, indices in ends.items()
        }


def _describe(weights: StoredWeights, opened: Flatbuffer) -> DeployedTensor:
    buffer = opened.buffer(opened.graph.tensors[weights.index])
    return DeployedTensor(
        name=weights.name,
        op=weights.op,
        dtype=weights.dtype,
        shape=list(weights.values.shape),
        zero_fraction=float(np.mean(weights.values == weights.zero_point)),
        distinct_values=len(np.unique(weights.values)),
        max_distinct_values_per_channel=max(len(np.unique(channel)) for channel in weights.channels),
        channel_axis=weights.channel_axis,
        layer=layer_of(weights.name, weights.op),
        quantization_axis=weights.quantization_axis,
        scales=weights.scales.tolist(),
        entropy_bits=round(weights.entropy_bits, _ENTROPY_DIGITS),
        stored_bytes=weights.stored_bytes,
        deflated_bytes=_deflated_bytes(buffer.tobytes()),
        packed_bytes=len(shortest_deflate(buffer.tobytes())),
    )


def _deflated_bytes(content: Any) -> int:
    return len(zlib.compress(content, level=9)) if content else 0


def _zip_bytes(tflite: bytes) -> int:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(TFLITE_FILE, tflite)
    return len(packed.getvalue())
