import http.server
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.cloud import storage

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import local_copy


@pytest.fixture
def bucket(gcs_server: str, monkeypatch: pytest.MonkeyPatch) -> storage.Bucket:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server)
    return storage.Client(project="test").create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")


@pytest.fixture
def forbidding_server() -> Iterator[str]:
    class Forbid(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(403)

        def log_message(self, *args: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Forbid)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_local_path_is_not_copied(tmp_path: Path) -> None:
    file = tmp_path / "model.keras"
    file.write_bytes(b"model")

    assert local_copy(str(file), tmp_path / "downloads") == file
    assert not (tmp_path / "downloads").exists()


def test_missing_local_path_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match="does not exist") as caught:
        local_copy(str(tmp_path / "nothing.keras"), tmp_path)
    assert caught.value.where == str(tmp_path / "nothing.keras")


@pytest.mark.parametrize("uri", ["s3://bucket/model.keras", "https://example.com/model.keras"])
def test_other_schemes_are_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match="not supported"):
        local_copy(uri, tmp_path)


@pytest.mark.parametrize("uri", ["gs://", "gs://bucket", "gs://bucket/", "gs:///path"])
def test_uri_without_bucket_or_path_is_refused(uri: str, tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match="lacks a bucket or a path"):
        local_copy(uri, tmp_path)


def test_object_is_downloaded_under_its_name(bucket: storage.Bucket, tmp_path: Path) -> None:
    bucket.blob("models/a/model.keras").upload_from_string(b"weights")

    path = local_copy(f"gs://{bucket.name}/models/a/model.keras", tmp_path / "new")

    assert path == tmp_path / "new" / "model.keras"
    assert path.read_bytes() == b"weights"


def test_prefix_is_downloaded_as_a_directory(bucket: storage.Bucket, tmp_path: Path) -> None:
    bucket.blob("saved/").upload_from_string(b"")
    bucket.blob("saved/saved_model.pb").upload_from_string(b"graph")
    bucket.blob("saved/variables/variables.index").upload_from_string(b"index")
    bucket.blob("saved-not/other").upload_from_string(b"other")

    path = local_copy(f"gs://{bucket.name}/saved/", tmp_path)

    assert path == tmp_path / "saved"
    files = {str(file.relative_to(path)): file.read_bytes() for file in path.rglob("*") if file.is_file()}
    assert files == {"saved_model.pb": b"graph", "variables/variables.index": b"index"}


def test_missing_object_is_named(bucket: storage.Bucket, tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match=r"no object 'model\.keras'") as caught:
        local_copy(f"gs://{bucket.name}/model.keras", tmp_path)
    assert caught.value.where == f"gs://{bucket.name}/model.keras"


def test_missing_bucket_is_named(bucket: storage.Bucket, tmp_path: Path) -> None:
    with pytest.raises(CollaboptError, match="no bucket 'no-such-bucket'"):
        local_copy("gs://no-such-bucket/model.keras", tmp_path)


def test_lack_of_access_is_told(forbidding_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", forbidding_server)
    with pytest.raises(CollaboptError, match="no access to bucket 'private'") as caught:
        local_copy("gs://private/model.keras", tmp_path)
    assert "objectViewer" in caught.value.todo


def test_objects_stay_inside_the_directory(bucket: storage.Bucket, tmp_path: Path) -> None:
    bucket.blob("saved/../../escaped").upload_from_string(b"escaped")
    with pytest.raises(CollaboptError, match="leave the download directory"):
        local_copy(f"gs://{bucket.name}/saved", tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "escaped").exists()
