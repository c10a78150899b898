"""What is sent to Cloud Storage, and how its failures are told."""

import base64
import json
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

import google_crc32c
import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.object_store import Conflict, open_store
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.releases import read_release, verify

MEBIBYTE = 1 << 20


@dataclass
class StrictBucket:
    """The calls of Cloud Storage's JSON API that a release needs, with the preconditions that no emulator enforces.

    Attributes:
        objects: Name -> content, properties.
        uploads: What every upload asked for: kind, name, `ifGenerationMatch`, `crc32c`, `cacheControl`, status.
        sessions: Resumable upload -> `ifGenerationMatch`, properties, what has arrived.
        finished: Resumable uploads that have ended: sent to again, they answer as they did.
        lose_answers: How many answers to finished uploads are replaced by a 503.
        lose_chunks: How many pieces of resumable uploads are lost before they are kept.
        tamper: Whether what arrives differs from what was sent.
        generation: The generation given last.
    """

    objects: dict = field(default_factory=dict)
    uploads: list = field(default_factory=list)
    sessions: dict = field(default_factory=dict)
    finished: set = field(default_factory=set)
    lose_answers: int = 0
    lose_chunks: int = 0
    tamper: bool = False
    generation: int = 1000

    def finish(self, kind, expected, resource, content):
        name = resource["name"]
        present = self.objects.get(name, (b"", {"generation": "0"}))[1]["generation"]
        crc32c = base64.b64encode(google_crc32c.Checksum(content).digest()).decode()
        status = 200
        if expected is not None and expected != present:
            status = 412
        elif resource.get("crc32c", crc32c) != crc32c:
            status = 400
        asked = (resource.get("crc32c"), resource.get("cacheControl"))
        self.uploads.append((kind, name, expected, *asked, status))
        if status != 200:
            return status, {"error": {"message": f"status {status}"}}
        self.generation += 1
        self.objects[name] = (
            content,
            {**resource, "generation": str(self.generation), "size": str(len(content)), "crc32c": crc32c},
        )
        if self.lose_answers:
            self.lose_answers -= 1
            return 503, {}
        return 200, self.objects[name][1]


def handler_of(bucket):
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self, status, content=b"", headers=()):
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            for name, value in headers:
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def asked(self):
            parts = urlsplit(self.path)
            return parts.path, {name: values[0] for name, values in parse_qs(parts.query).items()}

        def do_GET(self):
            path, query = self.asked()
            name = unquote(path.partition("/o/")[2])
            if not name:
                found = [entry for key, (_, entry) in bucket.objects.items() if key.startswith(query.get("prefix", ""))]
                self.answer(200, {"items": found})
            elif name not in bucket.objects:
                self.answer(404, b"No such object")
            elif query.get("alt") == "media":
                content, entry = bucket.objects[name]
                hashed = f"crc32c={entry['crc32c']}"
                self.answer(200, content, [("X-Goog-Generation", entry["generation"]), ("X-Goog-Hash", hashed)])
            else:
                self.answer(200, bucket.objects[name][1])

        def do_POST(self):
            _, query = self.asked()
            body = self.rfile.read(int(self.headers["Content-Length"]))
            expected = query.get("ifGenerationMatch")
            if query["uploadType"] == "resumable":
                session = f"s{len(bucket.sessions)}"
                bucket.sessions[session] = (expected, json.loads(body), bytearray())
                address = f"http://{self.headers['Host']}{self.path.partition('?')[0]}?upload_id={session}"
                return self.answer(200, b"", [("Location", address)])
            boundary = re.search(r'boundary="?([^"]+)"?', self.headers["Content-Type"])[1].encode()
            _, head, content, _ = body.split(b"--" + boundary)
            resource = json.loads(head.partition(b"\r\n\r\n")[2])
            content = content.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
            self.answer(*bucket.finish("multipart", expected, resource, content + b"!" * bucket.tamper))

        def do_PUT(self):
            _, query = self.asked()
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            expected, resource, content = bucket.sessions[query["upload_id"]]
            if resource["name"] in bucket.objects and query["upload_id"] in bucket.finished:
                return self.answer(200, bucket.objects[resource["name"]][1])
            if bucket.lose_chunks:
                bucket.lose_chunks -= 1
                return self.answer(503)
            first, last, size = re.fullmatch(
                r"bytes (?:(\d+)-(\d+)|\*)/(\d+|\*)", self.headers["Content-Range"]
            ).groups()
            if first is not None:
                assert int(first) == len(content) and int(last) - int(first) + 1 == len(body)
                content += body
            if size != "*" and len(content) == int(size):
                bucket.finished.add(query["upload_id"])
                return self.answer(
                    *bucket.finish("resumable", expected, resource, bytes(content) + b"!" * bucket.tamper)
                )
            self.answer(308, b"", [("Range", f"bytes=0-{len(content) - 1}")] if content else [])

        def log_message(self, *arguments):
            pass

    return Handler


@pytest.fixture
def strict(monkeypatch, surroundings):
    bucket = StrictBucket()
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler_of(bucket))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{server.server_port}")
    yield bucket
    server.shutdown()
    server.server_close()


def test_every_upload_of_a_promotion_is_conditional_and_checked(strict, client, make_candidate, new_run, ship):
    """Also that of a model of more than 8 MiB, which the client library sends in pieces."""
    candidate = make_candidate()
    for number in range(2):
        big = candidate.directory / "big.bin"
        big.write_bytes(bytes([number]) * (17 * MEBIBYTE))
        candidate = make_candidate(number)
        candidate.extra_files["big.bin"] = big
        ship(open_store("gs://bucket/releases"), candidate, new_run(client), "kws")
    assert {kind for kind, *_ in strict.uploads} == {"multipart", "resumable"}
    pointer_writes = []
    for _, name, expected, crc32c, cache_control, _status in strict.uploads:
        assert expected is not None and crc32c, name
        if name == "releases/kws/champion.json":
            pointer_writes.append(expected)
            assert cache_control == "no-store"
        else:
            assert expected == "0"
    assert pointer_writes[0] == "0" and int(pointer_writes[1]) > 0
    store = open_store("gs://bucket/releases")
    verify(store, read_release(store, "kws", candidate.sha256))
    assert champion_of(store, "kws")[0].champion == candidate.sha256


@pytest.mark.parametrize("size", [100, 9 * MEBIBYTE], ids=["small", "big"])
def test_an_object_is_created_once(strict, tmp_path, size):
    store, file = open_store("gs://bucket"), tmp_path / "model.tflite"
    file.write_bytes(b"a" * size)
    store.create("kws/a", file, "text/plain")
    store.create("kws/a", file, "text/plain")
    file.write_bytes(b"b" * size)
    with pytest.raises(CollaboptError, match="another content under the name"):
        store.create("kws/a", file, "text/plain")
    assert store.read("kws/a")[0] == b"a" * size
    assert [status for *_, status in strict.uploads] == [200, 412, 412]


@pytest.mark.parametrize("size", [100, 9 * MEBIBYTE], ids=["small", "big"])
def test_a_write_whose_answer_is_lost_is_sent_again(strict, tmp_path, size):
    store, file = open_store("gs://bucket"), tmp_path / "model.tflite"
    file.write_bytes(b"a" * size)
    strict.lose_answers = 1
    store.create("kws/a", file, "text/plain")
    generation = store.replace("kws/p", b"1", 0)
    strict.lose_answers = 1
    assert store.replace("kws/p", b"2", generation) == store.read("kws/p")[1]
    with pytest.raises(Conflict):
        store.replace("kws/p", b"3", generation)
    assert store.read("kws/p")[0] == b"2"


def test_a_big_upload_survives_a_lost_piece(strict, tmp_path):
    store, file = open_store("gs://bucket"), tmp_path / "model.tflite"
    file.write_bytes(bytes(range(256)) * (20 << 12))
    strict.lose_chunks = 1
    store.create("kws/a", file, "text/plain")
    assert store.read("kws/a")[0] == file.read_bytes()


@pytest.mark.parametrize("size", [100, 9 * MEBIBYTE], ids=["small", "big"])
def test_a_content_that_is_damaged_on_its_way_is_refused(strict, tmp_path, size):
    store, file = open_store("gs://bucket"), tmp_path / "model.tflite"
    file.write_bytes(b"a" * size)
    strict.tamper = True
    with pytest.raises(CollaboptError, match="did not do what was asked"):
        store.create("kws/a", file, "text/plain")
    assert strict.objects == {}


def test_a_dead_server_is_an_error_within_the_deadline(monkeypatch, surroundings):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("COLLABOPT_STORAGE_DEADLINE_SECONDS", "1.5")
    store = open_store("gs://bucket/releases")
    for call in (
        lambda: store.read("kws/a"),
        lambda: store.create("kws/a", b"1", "text/plain"),
        lambda: store.replace("kws/a", b"1", 0),
        lambda: store.names("kws/"),
    ):
        start = time.monotonic()
        with pytest.raises(CollaboptError, match=r"did not do what was asked(.|\n)*\(now 1.5 s\)"):
            call()
        assert time.monotonic() - start < 6


def test_a_silent_server_is_an_error_within_the_deadline(monkeypatch, surroundings):
    import socket

    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
        monkeypatch.setenv("COLLABOPT_STORAGE_DEADLINE_SECONDS", "1")
        start = time.monotonic()
        with pytest.raises(CollaboptError, match="did not do what was asked"):
            open_store("gs://bucket").replace("kws/a", b"1", 0)
        assert time.monotonic() - start < 6


def test_a_bucket_that_does_not_exist_is_named(gcs_server, monkeypatch, surroundings):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    with pytest.raises(CollaboptError, match="bucket 'nowhere', or the object in it, does not exist"):
        open_store("gs://nowhere").create("kws/a", b"1", "text/plain")


@pytest.mark.parametrize("given", ["soon", "0", "-1", "inf", "nan"])
def test_the_deadline_is_a_time(monkeypatch, given, surroundings):
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", "http://127.0.0.1:9")
    monkeypatch.setenv("COLLABOPT_STORAGE_DEADLINE_SECONDS", given)
    with pytest.raises(CollaboptError, match="is not a time in seconds"):
        open_store("gs://bucket")
