"""Sizes of files, as stages measure them."""

from typing import Any

from collabopt.components.engine.records import DeployedModel


def file_sizes(deployed: DeployedModel) -> dict[str, float]:
    """Sizes of a `.tflite` in bytes: raw, gzip -9, zip, and packed."""
    names = ("tflite_bytes", "gzip_bytes", "zip_bytes", "packed_bytes")
    return {name: float(getattr(deployed, name)) for name in names}


def float_file_sizes(model: Any) -> dict[str, float]:
    """Sizes in bytes of the float `.tflite` of a model, which compression is counted from."""
    from collabopt.components.engine.deployed.convert import to_float32
    from collabopt.components.engine.deployed.inspect import inspect_tflite

    return file_sizes(inspect_tflite(to_float32(model)))
