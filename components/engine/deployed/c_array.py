"""The model as C source, for targets without a file system."""

import math
import re
from pathlib import Path
from typing import Any

from collabopt.components.engine.deployed.flatbuffer import Flatbuffer, open_flatbuffer, refusing_damage
from collabopt.components.engine.records import DeployedModel


def write_c_array(tflite: bytes, deployed: DeployedModel, directory: Path, *, stage: str) -> tuple[Path, Path]:
    """Writes `model_data.cc` and `model_data.h`.

    The header also says how to fill the input and read the output, in macros: `G_<STAGE>_INPUT_SCALE`,
    `..._ZERO_POINT` and `..._ELEMENTS`, and the same of `OUTPUT`; real value = scale * (integer - zero point). A tensor
    that is not quantized has no scale and no zero point.

    Args:
        tflite: The flatbuffer.
        deployed: Its inspection, for the comment.
        directory: Where to write.
        stage: Name of the leaf; names the symbols.

    Returns:
        Paths of the source and of the header.

    Raises:
        CollaboptError: The bytes are not a TFLite model, or a damaged one.
    """
    symbol = "g_" + re.sub(r"\W", "_", stage)
    guard = f"COLLABOPT_{symbol.upper()}_MODEL_DATA_H_"
    header = directory / "model_data.h"
    source = directory / "model_data.cc"
    header.write_text(
        f"#ifndef {guard}\n#define {guard}\n\n"
        f"// {stage}: {deployed.tflite_bytes} bytes, sha256 {deployed.sha256}\n"
        f"extern const unsigned char {symbol}[];\nextern const unsigned int {symbol}_len;\n\n"
        + "".join(f"{line}\n" for line in _macros(open_flatbuffer(tflite), symbol.upper()))
        + f"\n#endif  // {guard}\n",
        encoding="ascii",
    )
    rows = [", ".join(f"0x{byte:02x}" for byte in tflite[start : start + 12]) for start in range(0, len(tflite), 12)]
    source.write_text(
        '#include "model_data.h"\n\n'
        f"alignas(16) const unsigned char {symbol}[] = {{\n  " + ",\n  ".join(rows) + "};\n"
        f"const unsigned int {symbol}_len = {len(tflite)};\n",
        encoding="ascii",
    )
    return source, header


def _macros(opened: Flatbuffer, prefix: str) -> list[str]:
    with refusing_damage():
        lines = []
        for role, indices in (("INPUT", opened.graph.inputs), ("OUTPUT", opened.graph.outputs)):
            for number, index in enumerate(indices):
                # Nearly every model has one input and one output; further ones are numbered.
                name = f"{prefix}_{role}{number or ''}"
                lines += _macros_of(opened, opened.graph.tensors[index], name)
        return lines


def _macros_of(opened: Flatbuffer, tensor: Any, name: str) -> list[str]:
    shape = [int(size) for size in (() if tensor.shape is None else tensor.shape)]
    lines = [f"// {opened.dtype(tensor)} {shape}", f"#define {name}_ELEMENTS {math.prod(shape)}"]
    quantization = tensor.quantization
    if quantization is not None and quantization.scale is not None and len(quantization.scale) == 1:
        # Nine digits give back the same float.
        lines.append(f"#define {name}_SCALE {quantization.scale[0]:.8e}f")
        zero_point = 0 if quantization.zeroPoint is None else int(quantization.zeroPoint[0])
        lines.append(f"#define {name}_ZERO_POINT ({zero_point})")
    return lines
