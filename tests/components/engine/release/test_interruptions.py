"""A promotion that is killed, or whose servers fail, at every step and every request; then run again."""

import json
import os
import signal
import uuid

import pytest
import requests

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release import promotion
from collabopt.components.engine.release.manifest import facts_of
from collabopt.components.engine.release.object_store import open_store
from collabopt.components.engine.release.pointer import Pointer, champion_of, flip
from collabopt.components.engine.release.releases import draft, read_release, upload, verify, write_manifest


@pytest.fixture
def scene(served, store_uri, make_candidate, new_run, ship):
    """Makes a name that has a champion, and a function that promotes another one over it, always in the same run."""
    former, winner = make_candidate(), make_candidate(1)
    store = open_store(store_uri)

    def make():
        name = uuid.uuid4().hex[:12]
        manifest = draft(store, name, former.files(), facts_of(former.report, "run-0"))
        for file, path in former.files().items():
            upload(store, manifest, file, path)
        write_manifest(store, manifest)
        flip(store, Pointer(name=name, history=(former.sha256,)), 0)
        served.create_registered_model(name)
        served.create_model_version(name, "gs://nowhere/model", tags={"sha256": former.sha256})
        served.set_registered_model_alias(name, "champion", "1")
        run = new_run(served)
        return lambda: ship(open_store(store_uri), winner, run, name), name, run

    return make


@pytest.fixture
def ending(served, store_uri):
    """All that a promotion leaves, without ids and times."""

    def read(name, run):
        store = open_store(store_uri)
        objects = {}
        for object_name in store.names(f"{name}/"):
            content = store.read(object_name)[0]
            if "/releases/" in object_name:
                content = {key: value for key, value in json.loads(content).items() if key != "created"}
            objects[object_name.removeprefix(name)] = str(content).replace(name, "NAME")
        pointer = champion_of(store, name)[0]
        for sha256 in pointer.history:
            verify(store, read_release(store, name, sha256))
        models = served.search_logged_models([run.experiment_id])
        own = [str(model.status) for model in models if model.source_run_id == run.run_id]
        versions = []
        for version in served.search_model_versions(f"name='{name}'"):
            tags = dict(version.tags)
            logged = tags.pop("model_id", None)
            ready = None if logged is None else str(served.get_logged_model(logged).status)
            files = [] if logged is None else sorted(f.path for f in served.list_logged_model_artifacts(logged))
            versions.append((str(version.version), str(tags).replace(name, "NAME"), ready, files))
        aliases = {alias: str(number) for alias, number in served.get_registered_model(name).aliases.items()}
        return objects, sorted(versions), aliases, own

    return read


def kill_at(number, *, before):
    """Has this process killed around its request of this number, counted from 1; returns the count."""
    send, count = requests.Session.send, [0]

    def counted(self, request, **arguments):
        count[0] += 1
        mine = count[0] == number
        if mine and before:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = send(self, request, **arguments)
        if mine:
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    requests.Session.send = counted
    return count


@pytest.mark.parametrize("store_uri", ["bucket"], indirect=True)
def test_killed_at_every_request(scene, ending, in_child, tmp_path):
    """Before the odd requests and after the even ones."""

    def counting(promote):
        count = kill_at(0, before=True)
        promote()
        (tmp_path / "count").write_text(str(count[0]))

    promote, *scene_of = scene()
    assert in_child(lambda: counting(promote))() == 0
    expected = ending(*scene_of)
    assert expected[2:] == ({"champion": "2", "previous": "1"}, ["READY"])
    total = int((tmp_path / "count").read_text())
    assert total > 12

    wrong = {}
    for number in range(1, total + 1):
        promote, *scene_of = scene()

        def killed(promote=promote, number=number):
            kill_at(number, before=number % 2 == 1)
            promote()

        assert in_child(killed)() == -signal.SIGKILL, number
        promote()
        found = ending(*scene_of)
        if found != expected:
            wrong[number] = found
    print(f"killed at {total} requests")
    assert wrong == {}


def test_killed_at_every_step(scene, ending, in_child, monkeypatch):
    """Before the first step that the code names, and after every one."""
    promote, *scene_of = scene()
    names, perform = [], promotion.perform
    with monkeypatch.context() as listing:
        listing.setattr(promotion, "perform", lambda steps: (names.extend(step.name for step in steps), perform(steps)))
        promote()
    expected = ending(*scene_of)
    assert names[0].startswith("upload ") and names[-2:] == ["flip the pointer", "set the aliases"]

    wrong = {}
    for done in range(len(names) + 1):
        promote, *scene_of = scene()

        def killing(steps, done=done):
            perform(steps[:done])
            os.kill(os.getpid(), signal.SIGKILL)

        def killed(promote=promote, killing=killing):
            promotion.perform = killing
            promote()

        assert in_child(killed)() == -signal.SIGKILL
        promote()
        found = ending(*scene_of)
        if found != expected:
            wrong[done] = found
    assert wrong == {}


@pytest.mark.parametrize("store_uri", ["bucket"], indirect=True)
def test_a_server_fails_at_every_request(scene, ending, monkeypatch, mlflow_server, break_requests):
    """The server of request k is down from then on: refusing, silent, or overloaded, in turn."""
    monkeypatch.setenv("COLLABOPT_STORAGE_DEADLINE_SECONDS", "0.2")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    promote, *scene_of = scene()
    urls = []
    send = requests.Session.send
    with monkeypatch.context() as listening:
        listening.setattr(
            requests.Session,
            "send",
            lambda self, request, **more: (urls.append(request.url), send(self, request, **more))[1],
        )
        promote()
    expected = ending(*scene_of)

    wrong, messages = {}, set()
    for number in range(1, len(urls) + 1):
        fault = ("refused", "slow", "unavailable")[number % 3]
        promote, *scene_of = scene()
        of_mlflow = urls[number - 1].startswith(mlflow_server)
        with (
            break_requests(number, fault, lambda url, of=of_mlflow: url.startswith(mlflow_server) == of) as count,
            pytest.raises(CollaboptError) as caught,
        ):
            promote()
        assert count[0] >= number
        assert caught.value.where and caught.value.todo, caught.value
        messages.add(caught.value.what)
        promote()
        found = ending(*scene_of)
        if found != expected:
            wrong[number, fault] = found
    assert wrong == {}
    for message in messages:
        assert message.startswith(("MLflow: ", "Cloud Storage did not do what was asked: ")), message
        assert "upload_id" not in message
