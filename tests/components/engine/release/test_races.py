"""Eight gates with eight winners at once."""

import pytest

from collabopt.components.engine.release.object_store import Conflict, open_store
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.releases import read_release, releases, verify

GATES = 8


@pytest.fixture
def race(served, in_child, new_run, ship):
    """Lets processes promote candidates until each has succeeded; returns how they ended."""

    def run(store_uri, candidates, name):
        def gate(candidate):
            own = new_run(served)
            while True:
                try:
                    return ship(open_store(store_uri), candidate, own, name)
                except Conflict:
                    continue

        waits = [in_child(lambda candidate=candidate: gate(candidate)) for candidate in candidates]
        return [wait() for wait in waits]

    return run


def test_different_winners(race, store_uri, served, make_candidate, registered):
    candidates, name = [make_candidate(number) for number in range(GATES)], f"race-{store_uri[:2].strip('/')}"
    assert race(store_uri, candidates, name) == [0] * GATES

    store = open_store(store_uri)
    pointer, _ = champion_of(store, name)
    assert sorted(pointer.history) == sorted(candidate.sha256 for candidate in candidates)
    for candidate in candidates:
        manifest = read_release(store, name, candidate.sha256)
        assert set(manifest.files) == set(candidate.files())
        verify(store, manifest)
    aliases, versions = registered(served, name)
    assert {len(numbers) for numbers in versions.values()} == {1} and set(versions) == set(pointer.history)
    assert aliases == {"champion": versions[pointer.champion][0], "previous": versions[pointer.previous][0]}
    assert [release.mark for release in releases(store, name)].count("champion") == 1


def test_the_same_winner(race, bucket_uri, served, make_candidate, registered):
    candidate = make_candidate()
    assert race(bucket_uri, [candidate] * GATES, "same") == [0] * GATES
    store = open_store(bucket_uri)
    assert champion_of(store, "same")[0].history == (candidate.sha256,)
    aliases, versions = registered(served, "same")
    assert list(versions) == [candidate.sha256] and len(versions[candidate.sha256]) == 1
    assert aliases == {"champion": versions[candidate.sha256][0]}
