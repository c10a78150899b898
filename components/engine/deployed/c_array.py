"""The model as C source, for targets without a file system."""

import re
from pathlib import Path

from collabopt.components.engine.records import DeployedModel


def write_c_array(tflite: bytes, deployed: DeployedModel, directory: Path, *, stage: str) -> tuple[Path, Path]:
    """Writes `model_data.cc` and `model_data.h`.

    Args:
        tflite: The flatbuffer.
        deployed: Its inspection, for the comment.
        directory: Where to write.
        stage: Name of the leaf; names the symbols.

    Returns:
        Paths of the source and of the header.
    """
    symbol = "g_" + re.sub(r"\W", "_", stage)
    guard = f"COLLABOPT_{symbol.upper()}_MODEL_DATA_H_"
    header = directory / "model_data.h"
    source = directory / "model_data.cc"
    header.write_text(
        f"#ifndef {guard}\n#define {guard}\n\n"
        f"// {stage}: {deployed.tflite_bytes} bytes, sha256 {deployed.sha256}\n"
        f"extern const unsigned char {symbol}[];\nextern const unsigned int {symbol}_len;\n\n"
        f"#endif  // {guard}\n",
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
