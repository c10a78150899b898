"""A release gains patches as long as it lives: from several gates at once, and it survives the loss of one."""

import dataclasses
from concurrent.futures import ThreadPoolExecutor

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.manifest import facts_of
from collabopt.components.engine.release.object_store import open_store
from collabopt.components.engine.release.releases import (
    draft,
    read_release,
    to_upload,
    upload,
    verify,
    write_manifest,
)

NAME = "patched"


@pytest.fixture
def publish(make_candidate, tmp_path, store_uri):
    """Publishes one and the same model with the patch from another."""
    candidate = make_candidate()

    def run(base):
        patch = tmp_path / base / f"delta-from-{base}.zst"
        patch.parent.mkdir()
        patch.write_bytes(base.encode())
        files = dataclasses.replace(candidate, extra_files={patch.name: patch}).files()
        store = open_store(store_uri)
        manifest = draft(store, NAME, files, facts_of(candidate.report, base))
        for file in to_upload(manifest, files):
            upload(store, manifest, file, files[file])
        return write_manifest(store, manifest)

    return run


def test_gates_that_add_patches_at_once_lose_none(publish, store_uri):
    bases = [f"{number:012x}" for number in range(8)]
    first = publish("f" * 12)
    with ThreadPoolExecutor(len(bases)) as gates:
        list(gates.map(publish, bases))
    store = open_store(store_uri)
    manifest = read_release(store, NAME, first.sha256)
    assert set(manifest.files) == {*first.files, *(f"delta-from-{base}.zst" for base in bases)}
    assert (manifest.facts, manifest.created) == (first.facts, first.created)
    verify(store, manifest)


class Lacking:
    """A store that has lost the objects of a file."""

    def __init__(self, store, file):
        """Wraps the store that has them."""
        self._store, self._file, self.uri = store, file, store.uri

    def read(self, name):
        return None if name.endswith(f"/{self._file}") else self._store.read(name)


def test_a_release_is_good_without_a_patch_that_is_gone_and_not_without_anything_else(publish, store_uri):
    manifest = publish("0" * 12)
    store = open_store(store_uri)
    verify(Lacking(store, f"delta-from-{'0' * 12}.zst"), manifest)
    for file in manifest.files:
        if not file.startswith("delta-"):
            with pytest.raises(CollaboptError, match=f"'{file}' of the release is gone"):
                verify(Lacking(store, file), manifest)
