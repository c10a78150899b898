"""Releases in a store: how one is published, how they are read back."""

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import RELEASED_FILES, TFLITE_FILE
from collabopt.components.engine.release.checksums import crc32c_of, sha256_of
from collabopt.components.engine.release.manifest import Manifest, ReleasedFile, ReleaseFacts
from collabopt.components.engine.release.names import file_object, is_patch_file, manifest_object, manifest_prefix
from collabopt.components.engine.release.object_store import Conflict, ObjectStore
from collabopt.components.engine.release.pointer import champion_of

_CONTENT_TYPES = {
    ".cc": "text/plain; charset=utf-8",
    ".gz": "application/gzip",
    ".h": "text/plain; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".json": "application/json",
    ".md": "text/markdown; charset=utf-8",
    ".zst": "application/zstd",
}


@dataclass(frozen=True)
class Release:
    """A release as it is listed.

    Attributes:
        manifest: Its manifest.
        mark: What it is at the moment; "" where it is none of these.
    """

    manifest: Manifest
    mark: Literal["champion", "previous", "withdrawn", ""]


def draft(store: ObjectStore, name: str, files: Mapping[str, Path], facts: ReleaseFacts) -> Manifest:
    """The manifest that a model gets of these files, or the one it has, with new patches; writes nothing."""
    described = {file: _described(name, file, path) for file, path in files.items()}
    sha256 = described[TFLITE_FILE].sha256
    found = _read_manifest(store, name, sha256)
    if found is not None:
        return _with_patches(found[0], described)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
    return Manifest(name=name, sha256=sha256, facts=facts, created=now, files=described)


def to_upload(manifest: Manifest, files: Mapping[str, Path]) -> list[str]:
    """Which of the files belong to a manifest; for one that is in the store, uploading them again mends it."""
    return [
        file
        for file, path in files.items()
        if file in manifest.files and manifest.files[file].sha256 == sha256_of(path)
    ]


def upload(store: ObjectStore, manifest: Manifest, file: str, path: Path) -> None:
    """Uploads one file of a release."""
    content_type = _CONTENT_TYPES.get(path.suffix, "application/octet-stream")
    store.create(manifest.files[file].object, path, content_type)


def write_manifest(store: ObjectStore, manifest: Manifest) -> Manifest:
    """Writes a manifest, or adds its patches to the one that there is for its model; returns the one that counts."""
    while True:
        found = _read_manifest(store, manifest.name, manifest.sha256)
        present, generation = found if found is not None else (None, 0)
        complete = manifest if present is None else _with_patches(present, manifest.files)
        if complete == present:
            return complete
        content = complete.model_dump_json(indent=2) + "\n"
        try:
            store.replace(manifest_object(manifest.name, manifest.sha256), content.encode("utf-8"), generation)
            return complete
        except Conflict:  # another gate has added its own
            continue


def read_release(store: ObjectStore, name: str, sha256: str) -> Manifest:
    """Reads the manifest of a release.

    Raises:
        CollaboptError: There is none, or it is damaged.
    """
    found = _read_manifest(store, name, sha256)
    if found is None:
        raise CollaboptError(
            "there is no release of this model",
            where=f"{store.uri}/{manifest_object(name, sha256)}",
            todo=f"see what there is with `collabopt releases '{name}'`",
        )
    return found[0]


def read_file(store: ObjectStore, manifest: Manifest, file: str) -> bytes:
    """Reads a file of a release and checks its digest.

    Raises:
        CollaboptError: The release has no such file, its object is gone, or it is not what the manifest says.
    """
    released = manifest.files.get(file)
    if released is None:
        raise CollaboptError(
            f"the release has no file '{file}'",
            where=f"{store.uri}/{manifest_object(manifest.name, manifest.sha256)}",
            todo=f"it has {', '.join(sorted(manifest.files))}",
        )
    return _checked(store, manifest, file, store.read(released.object))


def _checked(store: ObjectStore, manifest: Manifest, file: str, found: tuple[bytes, int] | None) -> bytes:
    released = manifest.files[file]
    where = f"{store.uri}/{released.object}"
    if found is None:
        raise CollaboptError(
            f"'{file}' of the release is gone", where=where, todo="run the gate that made the release again"
        )
    if hashlib.sha256(found[0]).hexdigest() != released.sha256:
        raise CollaboptError(
            f"'{file}' of the release is not the file that was published",
            where=where,
            todo="find out who changed it; delete the object and run the gate that made the release again",
        )
    return found[0]


def verify(store: ObjectStore, manifest: Manifest) -> None:
    """Reads every file of a release back.

    A patch may be gone: it cannot be made again once its base is not the champion, and devices can do without it.

    Raises:
        CollaboptError: One is gone, or is not what the manifest says.
    """
    for file, released in manifest.files.items():
        found = store.read(released.object)
        if found is not None or not is_patch_file(file):
            _checked(store, manifest, file, found)


def releases(store: ObjectStore, name: str) -> list[Release]:
    """All releases of a name, newest first.

    Raises:
        CollaboptError: The store cannot be read, or a record in it is damaged.
    """
    found = champion_of(store, name)
    marks: dict[str, Literal["champion", "previous", "withdrawn"]] = {}
    if found is not None:
        pointer = found[0]
        marks |= {sha256: "withdrawn" for sha256 in pointer.withdrawn}
        if pointer.previous is not None:
            marks[pointer.previous] = "previous"
        marks[pointer.champion] = "champion"
    prefix = manifest_prefix(name)
    digests = [object_name.removeprefix(prefix).removesuffix(".json") for object_name in store.names(prefix)]
    manifests = [read_release(store, name, sha256) for sha256 in digests]
    manifests.sort(key=lambda manifest: (manifest.created, manifest.sha256), reverse=True)
    return [Release(manifest, marks.get(manifest.sha256, "")) for manifest in manifests]


def _described(name: str, file: str, path: Path) -> ReleasedFile:
    sha256 = sha256_of(path)
    return ReleasedFile(
        object=file_object(name, sha256, file), sha256=sha256, size_bytes=path.stat().st_size, crc32c=crc32c_of(path)
    )


def _with_patches(manifest: Manifest, files: Mapping[str, ReleasedFile]) -> Manifest:
    """With those of the files that are patches and that it does not have, and what is said of the decision for them."""
    new = {file: each for file, each in files.items() if is_patch_file(file) and file not in manifest.files}
    if not new:
        return manifest
    said = {file: each for file, each in files.items() if file in RELEASED_FILES}
    return manifest.model_copy(update={"files": {**manifest.files, **said, **new}})


def _read_manifest(store: ObjectStore, name: str, sha256: str) -> tuple[Manifest, int] | None:
    """A manifest and its generation."""
    found = store.read(manifest_object(name, sha256))
    if found is None:
        return None
    try:
        manifest = Manifest.model_validate_json(found[0])
        reason = "" if (manifest.name, manifest.sha256) == (name, sha256) else "it is that of another release"
    except ValidationError as error:
        reason = error.errors()[0]["msg"]
    if reason:
        raise CollaboptError(
            f"the manifest is damaged, or of another version of collabopt: {reason}",
            where=f"{store.uri}/{manifest_object(name, sha256)}",
            todo="delete the object and run the gate that made the release again",
        )
    return manifest, found[1]
