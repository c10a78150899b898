import io

import pytest
from rich.console import Console

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.release.object_store import open_store
from collabopt.components.engine.release.operations import rollback
from collabopt.components.engine.release.pointer import champion_of, flip
from collabopt.pipelines.releases import print_releases, repair_releases, roll_back

NAME = "kws"


@pytest.fixture
def store(store_uri):
    return open_store(store_uri)


@pytest.fixture
def status(client):
    """What the registry says of every version's validation: digest -> status."""

    def read():
        versions = client.search_model_versions(f"name='{NAME}'")
        return {version.tags["sha256"]: version.tags["validation_status"] for version in versions}

    return read


@pytest.fixture
def three(client, store, make_candidate, new_run, ship):
    """Three champions, one after the other; their digests."""
    made = [make_candidate(number) for number in range(3)]
    for candidate in made:
        ship(store, candidate, new_run(client), NAME)
    return [candidate.sha256 for candidate in made]


def printed(function, *arguments):
    console = Console(file=io.StringIO(), width=150)
    function(*arguments, console)
    return console.file.getvalue()


def test_a_rollback_ships_the_one_before(client, store, three, registered, status, make_candidate, new_run, ship):
    assert set(status().values()) == {"approved"}
    pointer = rollback(store, NAME)
    assert (pointer.champion, pointer.previous, pointer.withdrawn) == (three[1], three[0], (three[2],))
    assert (pointer.decision, pointer.pending) == ("", "")
    assert champion_of(store, NAME)[0] == pointer
    assert registered(client, NAME)[0] == {"champion": "2", "previous": "1"}
    assert status() == {three[0]: "approved", three[1]: "approved", three[2]: "rejected"}
    with pytest.raises(CollaboptError, match="has been rolled back"):
        ship(store, make_candidate(2), new_run(client), NAME)
    rollback(store, NAME)
    assert registered(client, NAME)[0] == {"champion": "1"}
    with pytest.raises(CollaboptError, match="nothing to roll back to"):
        rollback(store, NAME)
    ship(store, make_candidate(3), new_run(client), NAME)
    assert champion_of(store, NAME)[0].history == (three[0], make_candidate(3).sha256)


def test_a_rollback_that_mlflow_did_not_follow_is_finished_not_repeated(store, three, registered, client, monkeypatch):
    with monkeypatch.context() as down:
        down.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
        for _ in range(2):
            with pytest.raises(CollaboptError, match=f"is rolled back to {three[1]}, but not in MLflow"):
                rollback(store, NAME)
    assert registered(client, NAME)[0] == {"champion": "3", "previous": "2"}
    assert rollback(store, NAME).champion == three[1]
    assert registered(client, NAME)[0] == {"champion": "2", "previous": "1"}


def test_what_a_killed_gate_has_left_in_the_registry_is_mended(store_uri, store, three, registered, client, status):
    """Aliases of before the last promotion, and a rollback that has not reached the registry."""
    pointer, generation = champion_of(store, NAME)
    flip(store, pointer.rolled_back(), generation)
    client.set_registered_model_alias(NAME, "champion", "1")
    client.delete_registered_model_alias(NAME, "previous")
    before = [store.read(name) for name in store.names(f"{NAME}/releases/")]
    printed(print_releases, NAME, store_uri)
    assert registered(client, NAME)[0] == {"champion": "1"}
    for _ in range(2):
        said = printed(repair_releases, NAME, store_uri)
        assert f"MLflow's aliases say what the releases say: champion {three[1][:12]}, previous {three[0][:12]}" in said
        assert registered(client, NAME)[0] == {"champion": "2", "previous": "1"}
        assert status()[three[2]] == "rejected"
        assert champion_of(store, NAME)[0].pending == ""
    assert [store.read(name) for name in store.names(f"{NAME}/releases/")] == before


def test_a_rollback_of_a_named_champion_happens_once(store, three, client):
    for _ in range(3):
        assert rollback(store, NAME, three[2][:8]).champion == three[1]
    with pytest.raises(CollaboptError, match=f"the champion of 'kws' is {three[1]} by now, not {three[0]}"):
        rollback(store, NAME, three[0])
    for unknown in ("0" * 64, three[1][:4]):
        with pytest.raises(CollaboptError, match="does not name a release"):
            rollback(store, NAME, unknown)
    assert champion_of(store, NAME)[0].champion == three[1]


def test_nothing_is_rolled_back_to_a_release_with_a_damaged_file(client, tmp_path, make_candidate, new_run, ship):
    store = open_store(str(tmp_path / "released"))
    for number in range(2):
        ship(store, make_candidate(number), new_run(client), NAME)
    before = champion_of(store, NAME)
    (store.root / NAME / "objects" / make_candidate(0).sha256 / "model.tflite").write_bytes(b"damaged")
    with pytest.raises(CollaboptError, match="is not the file that was published"):
        rollback(store, NAME)
    assert champion_of(store, NAME) == before


def test_eight_operators_withdraw_one_champion(store_uri, store, three, in_child, client):
    def once():
        assert rollback(open_store(store_uri), NAME, three[2]).champion == three[1]

    waits = [in_child(once) for _ in range(8)]
    assert [wait() for wait in waits] == [0] * 8
    assert champion_of(store, NAME)[0].withdrawn == (three[2],)


def test_what_is_printed(store_uri, three, client):
    table = printed(print_releases, NAME, store_uri)
    rows = [line for line in table.splitlines() if any(digest[:12] in line for digest in three)]
    assert [row.split()[0] for row in rows] == [digest[:12] for digest in reversed(three)]
    assert "champion" in rows[0] and "previous" in rows[1] and "accuracy 0.9000" in rows[2]
    said = printed(roll_back, NAME, store_uri)
    assert f"{three[1][:12]} is shipped again, {three[2][:12]} is withdrawn" in said
    lines = printed(print_releases, NAME, store_uri).splitlines()
    assert "withdrawn" in next(line for line in lines if three[2][:12] in line)


def test_names_without_releases_are_errors(store_uri, client):
    for function in (print_releases, repair_releases, roll_back):
        with pytest.raises(CollaboptError, match="there is no release of 'nothing'"):
            function("nothing", store_uri, Console(file=io.StringIO()))
        with pytest.raises(CollaboptError, match="not a legal name"):
            function("../x", store_uri, Console(file=io.StringIO()))
