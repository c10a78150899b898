import json

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.object_store import Conflict, open_store
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.promotion import Attempt, promote, steps_of
from collabopt.components.engine.release.releases import read_file, read_release, releases, verify

NAME = "keyword spotter"


@pytest.fixture
def store(store_uri):
    return open_store(store_uri)


def test_a_release_is_complete_and_found_everywhere(client, store, make_candidate, new_run, ship, registered):
    candidate = make_candidate()
    promotion = ship(store, candidate, new_run(client), NAME)

    pointer, _ = champion_of(store, NAME)
    assert (pointer.champion, pointer.previous, pointer.history) == (candidate.sha256, None, (candidate.sha256,))
    assert pointer.decision == "d" + candidate.sha256
    written = json.loads(store.read(f"{NAME}/champion.json")[0])
    assert store.read(written["model"])[0] == candidate.tflite.read_bytes()
    assert json.loads(store.read(written["manifest"])[0])["sha256"] == candidate.sha256 == written["champion"]

    manifest = read_release(store, NAME, candidate.sha256)
    assert set(manifest.files) == {"model.tflite", "report.json", "model_data.cc", "model_data.h", "model_card.md"}
    for file, path in candidate.files().items():
        assert read_file(store, manifest, file) == path.read_bytes()
        assert manifest.files[file].object == f"{NAME}/objects/{manifest.files[file].sha256}/{file}"
        assert manifest.files[file].size_bytes == path.stat().st_size
    facts = manifest.facts
    assert (facts.leaf, facts.metric, facts.metric_value, facts.pipeline_run_id) == ("ptq", "accuracy", 0.9, "run-1")
    assert set(store.names("")) == {
        *(file.object for file in manifest.files.values()),
        f"{NAME}/releases/{candidate.sha256}.json",
        f"{NAME}/champion.json",
    }

    (version,) = client.search_model_versions(f"name='{NAME}'")
    assert (version.tags["release"], version.tags["manifest"]) == (store.uri, written["manifest"])
    assert (promotion.version, promotion.store, promotion.manifest) == ("1", store.uri, written["manifest"])
    assert registered(client, NAME) == ({"champion": "1"}, {candidate.sha256: ["1"]})


def test_champions_follow_each_other(client, store, make_candidate, new_run, ship, registered):
    first, second = make_candidate(), make_candidate(1)
    for candidate in (first, second):
        ship(store, candidate, new_run(client), NAME)
    pointer, generation = champion_of(store, NAME)
    assert pointer.history == (first.sha256, second.sha256)
    assert registered(client, NAME)[0] == {"champion": "2", "previous": "1"}
    ship(store, second, new_run(client), NAME)
    assert champion_of(store, NAME) == (pointer, generation)
    ship(store, first, new_run(client), NAME)
    assert champion_of(store, NAME)[0].history == (second.sha256, first.sha256)
    assert registered(client, NAME) == (
        {"champion": "1", "previous": "2"},
        {first.sha256: ["1"], second.sha256: ["2"]},
    )
    marks = {release.manifest.sha256: release.mark for release in releases(store, NAME)}
    assert marks == {first.sha256: "champion", second.sha256: "previous"}
    assert [release.manifest.sha256 for release in releases(store, NAME)] == [second.sha256, first.sha256]


def test_a_decision_against_a_former_champion_is_a_conflict(client, store, make_candidate, new_run, ship):
    ship(store, make_candidate(), new_run(client), NAME)
    before = store.names("")
    with pytest.raises(Conflict, match="has been changed by another process"):
        promote(make_candidate(1), name=NAME, store=store, seen=0, decision_digest="", run=new_run(client))
    assert store.names("") == before
    assert len(client.search_model_versions(f"name='{NAME}'")) == 1


def test_a_pointer_that_moves_during_the_promotion_is_a_conflict(client, store, make_candidate, new_run, ship):
    ship(store, make_candidate(), new_run(client), NAME)
    seen = champion_of(store, NAME)[1]
    attempt = Attempt(make_candidate(1), NAME, store, seen, "", new_run(client))
    steps = steps_of(attempt)
    ship(store, make_candidate(2), new_run(client), NAME)
    with pytest.raises(Conflict):
        for step in steps:
            step.do()
    assert champion_of(store, NAME)[0].history == (make_candidate(0).sha256, make_candidate(2).sha256)
    status = {
        version.tags["sha256"]: version.tags["validation_status"]
        for version in client.search_model_versions(f"name='{NAME}'")
    }
    assert status.pop(make_candidate(1).sha256) == "pending"
    assert set(status.values()) == {"approved"}


def test_the_first_manifest_of_a_model_counts(client, store, make_candidate, new_run, ship):
    candidate = make_candidate()
    ship(store, candidate, new_run(client), NAME)
    before = {name: store.read(name) for name in store.names("")}
    again = make_candidate()
    again.extra_files["model_card.md"].write_text("# another card of the same model\n")
    ship(store, again, new_run(client), NAME)
    assert {name: store.read(name) for name in store.names("")} == before


def test_a_lost_object_is_mended_by_promoting_again(client, store_uri, make_candidate, new_run, ship, tmp_path):
    store, candidate = open_store(store_uri), make_candidate()
    ship(store, candidate, new_run(client), NAME)
    lost = read_release(store, NAME, candidate.sha256).files["model.tflite"].object
    if store_uri.startswith("gs://"):
        store.client.bucket(store.bucket).blob(store.prefix + lost).delete()
    else:
        (store.root / lost).unlink()
    with pytest.raises(CollaboptError, match=r"'model.tflite' of the release is gone"):
        verify(store, read_release(store, NAME, candidate.sha256))
    ship(store, candidate, new_run(client), NAME)
    verify(store, read_release(store, NAME, candidate.sha256))


def test_a_foreign_object_stops_the_promotion_before_the_pointer(client, store, make_candidate, new_run, ship):
    candidate = make_candidate()
    store.create(f"{NAME}/objects/{candidate.sha256}/model.tflite", b"not the model", "text/plain")
    with pytest.raises(CollaboptError, match="another content under the name"):
        ship(store, candidate, new_run(client), NAME)
    assert champion_of(store, NAME) is None
    assert client.search_registered_models() == []


def test_a_lost_registry_is_filled_again(client, store, make_candidate, new_run, ship, registered):
    first, second = make_candidate(), make_candidate(1)
    ship(store, first, new_run(client), NAME)
    ship(store, second, new_run(client), NAME)
    client.delete_registered_model(NAME)
    ship(store, second, new_run(client), NAME)
    assert registered(client, NAME) == ({"champion": "1"}, {second.sha256: ["1"]})


@pytest.mark.parametrize("damage", [b"not json", b"{}", b'{"name": "x"}', b"[1]"])
def test_a_damaged_pointer_stops_everything(client, tmp_path, make_candidate, new_run, ship, damage):
    store = open_store(str(tmp_path / "released"))
    store.create(f"{NAME}/champion.json", damage, "application/json")
    with pytest.raises(CollaboptError, match="pointer to the champion is damaged"):
        ship(store, make_candidate(), new_run(client), NAME)


def test_a_pointer_edited_by_hand_is_damaged(client, tmp_path, make_candidate, new_run, ship):
    store = open_store(str(tmp_path / "released"))
    ship(store, make_candidate(), new_run(client), NAME)
    content, generation = store.read(f"{NAME}/champion.json")
    other = {**json.loads(content), "champion": "0" * 64}
    store.replace(f"{NAME}/champion.json", json.dumps(other).encode(), generation)
    with pytest.raises(CollaboptError, match="its champion is not the one that its history ends with"):
        champion_of(store, NAME)
