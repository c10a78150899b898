"""Versions of what produced an artifact, for the record."""

import importlib.metadata
import platform

_PACKAGES = ("collabopt", "tensorflow", "tf-keras", "tensorflow-model-optimization", "ai-edge-litert", "numpy")


def versions() -> dict[str, str]:
    """Package -> installed version; TensorFlow may be installed as `tensorflow-cpu`."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = importlib.metadata.version(f"{package}-cpu")
    return found
