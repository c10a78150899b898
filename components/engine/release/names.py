"""Which names a release may have, and where its objects lie below the store's root."""

import re

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import TFLITE_FILE

# Characters of a digest that tell a name's releases apart.
DIGEST_SHOWN = 12
_PATCH_PREFIX = "delta-from-"
_OBJECT_PART = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_. -]*[A-Za-z0-9_-])?")


def check_model_name(name: str) -> None:
    """Refuses names that cannot be written as `models:/<name>@champion`, looked up, or used as a directory.

    Raises:
        CollaboptError: The name is not legal.
    """
    if not _OBJECT_PART.fullmatch(name):
        raise CollaboptError(
            f"{name!r} is not a legal name for a registered model",
            todo="use letters, digits, '_', '-', '.' and spaces, beginning with a letter or digit",
        )


def check_object_name(name: str) -> None:
    """Refuses object names that could leave the store: absolute ones, `..`, hidden files, odd characters.

    Raises:
        CollaboptError: The name is not legal.
    """
    if not all(_OBJECT_PART.fullmatch(part) for part in name.split("/")):
        raise CollaboptError(f"{name!r} is not a legal name for an object of a release")


def pointer_object(name: str) -> str:
    """The object that says which release is the champion."""
    return f"{name}/champion.json"


def manifest_prefix(name: str) -> str:
    """What the manifests' objects begin with."""
    return f"{name}/releases/"


def manifest_object(name: str, sha256: str) -> str:
    """The manifest of the release whose `.tflite` file has this digest."""
    return f"{manifest_prefix(name)}{sha256}.json"


def file_object(name: str, sha256: str, file: str) -> str:
    """A file of a release, under the digest of its own content."""
    return f"{name}/objects/{sha256}/{file}"


def patch_file(sha256: str, kind: str) -> str:
    """The patch of a release, of a kind as `zst`, from the one whose `.tflite` file has this digest."""
    return f"{_PATCH_PREFIX}{sha256[:DIGEST_SHOWN]}.{kind}"


def is_patch_file(file: str) -> bool:
    """Whether a file of a release is a patch, which depends on what devices had before, not on the release alone."""
    return file.startswith(_PATCH_PREFIX)


def model_object(name: str, sha256: str) -> str:
    """The `.tflite` file of a release."""
    return file_object(name, sha256, TFLITE_FILE)
