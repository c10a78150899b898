"""Both kinds of store do the same."""

import os
import signal

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.object_store import Conflict, open_store


@pytest.fixture
def store(store_uri):
    return open_store(store_uri)


def test_what_was_created_is_read_and_listed(store, tmp_path):
    file = tmp_path / "file"
    file.write_bytes(b"from a file")
    assert store.names("") == []
    assert store.read("kws/a") is None
    store.create("kws/objects/ab/model.tflite.gz", b"\x1f\x8b not gzip", "application/gzip")
    store.create("kws/a", file, "text/plain")
    store.create("key word/b", b"b", "text/plain")
    assert store.read("kws/objects/ab/model.tflite.gz")[0] == b"\x1f\x8b not gzip"
    assert store.read("kws/a")[0] == b"from a file"
    assert store.names("kws/") == ["kws/a", "kws/objects/ab/model.tflite.gz"]
    assert store.names("key") == ["key word/b"]


def test_an_object_is_never_changed_by_creating_it(store):
    store.create("kws/a", b"first", "text/plain")
    before = store.read("kws/a")
    store.create("kws/a", b"first", "text/plain")
    with pytest.raises(CollaboptError, match="another content under the name 'kws/a'"):
        store.create("kws/a", b"other", "text/plain")
    assert store.read("kws/a") == before


def test_an_object_is_replaced_only_if_it_is_the_one_that_was_read(store):
    first = store.replace("kws/p", b"1", 0)
    assert store.read("kws/p") == (b"1", first)
    with pytest.raises(Conflict):
        store.replace("kws/p", b"2", 0)
    second = store.replace("kws/p", b"2", first)
    assert second != first
    with pytest.raises(Conflict):
        store.replace("kws/p", b"3", first)
    assert store.read("kws/p") == (b"2", second)


def test_a_write_that_has_landed_may_be_repeated(store):
    first = store.replace("kws/p", b"1", 0)
    assert store.replace("kws/p", b"1", 0) == first
    second = store.replace("kws/p", b"2", first)
    assert store.replace("kws/p", b"2", first) == second


@pytest.mark.parametrize(
    "name", ["", "/etc/passwd", "../x", "a/../x", "a//b", ".lock", "a/.hidden", "a\\b", "a/", "a\n"]
)
def test_names_that_leave_the_store_are_refused(store, name):
    with pytest.raises(CollaboptError, match="not a legal name for an object"):
        store.create(name, b"", "text/plain")
    with pytest.raises(CollaboptError, match="not a legal name for an object"):
        store.read(name)


@pytest.mark.parametrize("uri", ["s3://bucket/x", "gs://", "gs:///x", "file://host/x", "file://", "", "gs://b/../x"])
def test_other_addresses_are_refused(uri):
    with pytest.raises(CollaboptError):
        open_store(uri)


def test_a_directory_has_several_addresses(tmp_path):
    plain = open_store(str(tmp_path / "a b"))
    plain.create("kws/a", b"1", "text/plain")
    assert open_store((tmp_path / "a b").as_uri()).read("kws/a") == plain.read("kws/a")


def test_a_directory_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CollaboptError, match="cannot be written: Not a directory"):
        open_store(str(tmp_path / "file" / "x")).create("kws/a", b"1", "text/plain")


def test_a_directory_survives_a_kill_at_every_system_call(tmp_path, in_child):
    """Before and after each fsync and rename: the object is whole or not there, and nothing is left over."""
    real = {name: getattr(os, name) for name in ("fsync", "replace")}
    endings = set()
    for number in range(1, 100):
        store, count = open_store(str(tmp_path / str(number))), [0]
        generation = store.replace("kws/p", b"old" * 1000, 0)

        def work(store=store, count=count, number=number, generation=generation):
            def reached():
                count[0] += 1
                if count[0] == number:
                    os.kill(os.getpid(), signal.SIGKILL)

            def guarded(call):
                def do(*arguments):
                    reached()
                    call(*arguments)
                    reached()

                return do

            for name, call in real.items():
                setattr(os, name, guarded(call))
            store.create("kws/a", b"a" * 1000, "text/plain")
            store.replace("kws/p", b"new" * 1000, generation)

        status = in_child(work)()
        found = store.read("kws/a"), store.read("kws/p")
        assert found[0] is None or found[0][0] == b"a" * 1000
        assert found[1][0] in (b"old" * 1000, b"new" * 1000)
        endings.add((found[0] is None, found[1][0][:3]))
        store.create("kws/a", b"a" * 1000, "text/plain")
        store.replace("kws/p", b"new" * 1000, store.read("kws/p")[1])
        store.create("kws/z", b"", "text/plain")
        assert sorted(path.name for path in store.root.rglob("*") if path.is_file()) == [".lock", "a", "p", "z"]
        if status == 0:
            break
        assert status == -signal.SIGKILL
    assert number > 8
    assert endings == {(True, b"old"), (False, b"old"), (False, b"new")}


def test_eight_writers_of_one_object_lose_nothing(store_uri, in_child):
    def add(me):
        store = open_store(store_uri)
        while True:
            content, generation = store.read("kws/p") or (b"", 0)
            try:
                return store.replace("kws/p", content + bytes([me]), generation)
            except Conflict:
                pass

    waits = [in_child(lambda me=me: add(me)) for me in range(8)]
    assert [wait() for wait in waits] == [0] * 8
    assert sorted(open_store(store_uri).read("kws/p")[0]) == list(range(8))
