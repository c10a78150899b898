"""What a device downloads that runs the champion: figures, goals, and the patches that are released."""

import hashlib
import json
import shutil
import uuid

import pytest
from google.cloud import storage

from collabopt.components.engine.deployed.delta import Patch
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import read_candidates
from collabopt.components.engine.gate.decision import Champion, decide
from collabopt.components.engine.gate.run import Gate, run_gate
from collabopt.components.engine.gate.update import update_in_words
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.records import read_stage_record
from collabopt.components.engine.release.directory import DirectoryStore
from collabopt.components.engine.release.names import pointer_object
from collabopt.components.engine.release.object_store import open_store
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.releases import read_file, read_release

MODEL = "digits"
ANY = "goals: []"


@pytest.fixture(params=["directory", "bucket"])
def releases(request, tmp_path, monkeypatch):
    if request.param == "directory":
        return str(tmp_path / "releases")
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", request.getfixturevalue("gcs_server"))
    bucket = storage.Client(project="test").create_bucket(f"bucket-{uuid.uuid4().hex[:8]}")
    return f"gs://{bucket.name}/fleet"


@pytest.fixture
def gate(client, baseline_directory, samples, tmp_path):
    """Runs the gate on leaves."""

    def run(leaves, releases, policy=ANY, output="output"):
        candidates = read_candidates(read_stage_record(baseline_directory), leaves)
        gate = Gate(candidates, parse_policy(policy), lambda limit: samples, MODEL, releases)
        return run_gate(gate, tmp_path / output, {})

    return run


@pytest.fixture
def old(examples, make_leaf):
    return {"ptq": make_leaf(examples[0], 0.88)}


@pytest.fixture
def new(examples, make_leaf):
    return {"pqat": make_leaf(examples[1], 0.89, stage="pqat")}


def figures(decision):
    (verdict,) = decision.verdicts
    return verdict.figures


def champions_release(releases):
    store = open_store(releases)
    return store, read_release(store, MODEL, champion_of(store, MODEL)[0].champion)


def test_the_first_release_is_downloaded_whole(gate, old, releases):
    decision = gate(old, releases)
    assert figures(decision)["update_bytes"] == figures(decision)["packed_bytes"]
    assert "delta_bytes" not in figures(decision)
    assert not [file for file in champions_release(releases)[1].files if file.startswith("delta-")]
    assert "no champion yet" in update_in_words(decision, decision.verdicts[0])


def test_a_device_gets_the_new_champion_from_the_old_one_and_the_released_patch(gate, old, new, releases):
    before = gate(old, releases).winner_sha256
    decision = gate(new, releases, "{goals: [], fleet_size: 1000000}")
    store, manifest = champions_release(releases)
    patches = {file: read_file(store, manifest, file) for file in manifest.files if file.startswith("delta-")}
    assert figures(decision)["delta_bytes"] == min(len(patch) for patch in patches.values())
    assert figures(decision)["update_bytes"] == figures(decision)["delta_bytes"] < figures(decision)["packed_bytes"]

    running = read_file(store, read_release(store, MODEL, before), "model.tflite")
    for file, content in patches.items():
        stem, _, kind = file.rpartition(".")
        assert stem == f"delta-from-{before[:12]}"
        assert len(content) < figures(decision)["packed_bytes"]
        updated = Patch(kind, content).applied_to(running)
        assert hashlib.sha256(updated).hexdigest() == manifest.sha256 == decision.winner_sha256
    gigabytes = figures(decision)["update_bytes"] / 1000
    assert f"{gigabytes:.3g} GB for a fleet of 1,000,000" in update_in_words(decision, decision.verdicts[0])


def test_a_former_champion_that_comes_back_gains_the_patch_from_the_one_that_devices_have_by_then(
    gate, old, new, releases
):
    gate(old, releases)
    between = gate(new, releases).winner_sha256
    _, first = champions_release(releases)
    again = gate(old, releases)
    store, manifest = champions_release(releases)
    assert manifest.sha256 == again.winner_sha256 != first.sha256
    patches = {file: read_file(store, manifest, file) for file in manifest.files if file.startswith("delta-")}
    assert {file.partition(".")[0] for file in patches} == {f"delta-from-{between[:12]}"}
    assert figures(again)["update_bytes"] == min(len(patch) for patch in patches.values())
    card = json.loads(read_file(store, manifest, "model_card.json"))
    assert between in json.dumps(card) and str(figures(again)["update_bytes"]) in json.dumps(card)
    running = read_file(store, read_release(store, MODEL, between), "model.tflite")
    for file, content in patches.items():
        assert (
            hashlib.sha256(Patch(file.rpartition(".")[2], content).applied_to(running)).hexdigest() == manifest.sha256
        )


def test_a_gate_that_decides_again_because_another_one_was_faster_releases_the_patch_from_the_new_champion(
    gate, old, new, examples, make_leaf, monkeypatch, tmp_path
):
    releases = str(tmp_path / "releases")
    before = gate(old, releases).winner_sha256
    other, replace, faster = {"qat": make_leaf(examples[2], 0.9, stage="qat")}, DirectoryStore.replace, []

    def overtaken(self, name, content, generation):
        if name == pointer_object(MODEL) and not faster:
            faster.append("")
            faster[0] = gate(other, releases, output="of the other").winner_sha256
        return replace(self, name, content, generation)

    monkeypatch.setattr(DirectoryStore, "replace", overtaken)
    decision = gate(new, releases)
    store, manifest = champions_release(releases)
    assert decision.champion.sha256 == faster[0] and manifest.sha256 == decision.winner_sha256
    assert faster[0] in read_file(store, manifest, "model_card.json").decode()
    bases = {file.partition(".")[0] for file in manifest.files if file.startswith("delta-")}
    assert bases == {f"delta-from-{digest[:12]}" for digest in (before, faster[0])}


def test_who_has_the_file_downloads_nothing(gate, old, new, releases):
    gate(old, releases)
    decision = gate(old, releases, "goals: [{figure: update_bytes, threshold: 0}]")
    assert decision.winner == "ptq"
    assert figures(decision)["update_bytes"] == 0
    assert "has this file already" in update_in_words(decision, decision.verdicts[0])


def test_goals_on_the_update(gate, old, new, tmp_path):
    releases = str(tmp_path / "releases")
    gate(old, releases)
    size = figures(gate(new, releases, "goals: [{figure: update_bytes, threshold: 1}]"))["update_bytes"]
    for figure in ("update_bytes", "delta_bytes"):
        refused = gate(new, releases, f"goals: [{{figure: {figure}, threshold: {size - 1}}}]")
        assert refused.winner is None
        assert f"'{figure}' is {size:,.0f} B; accepted is at most {size - 1:,.0f} B" in refused.verdicts[0].reason
    assert gate(new, releases, f"goals: [{{figure: update_bytes, threshold: {size}}}]").winner == "pqat"


def test_a_goal_on_the_patch_is_met_where_there_is_no_champion(gate, old, tmp_path):
    decision = gate(old, str(tmp_path / "releases"), "goals: [{figure: delta_bytes, threshold: 1}]")
    assert decision.winner == "ptq"
    assert decision.verdicts[0].goals[0].reason == "there is no champion yet to make a patch from"


def test_the_smallest_update_can_be_what_ships(make_report, make_baseline):
    """The largest file is the one that differs least from what devices have."""
    leaves = {
        "ptq": make_report(0.9, stage="ptq", packed_bytes=4000, sha256="a"),
        "qat": make_report(0.9, stage="qat", packed_bytes=3000, sha256="b"),
    }
    policy, champion = parse_policy("priority: [update_bytes]"), Champion(sha256="c", leaf="ptq", figures={})
    deltas = {"ptq": 500, "qat": 3500}
    assert decide(make_baseline(), leaves, policy).winner == "qat"
    decision = decide(make_baseline(), leaves, policy, champion, delta_bytes=deltas)
    assert decision.winner == "ptq"
    assert {each.leaf: each.figures["update_bytes"] for each in decision.verdicts} == {"ptq": 500, "qat": 3000}
    words = {each.leaf: update_in_words(decision, each) for each in decision.verdicts}
    assert words == {
        "ptq": "500 B a device, a patch from the champion 'ptq' (c); the packed file is 4,000 B",
        "qat": "3,000 B a device, the packed file; a patch from the champion 'ptq' (c) would be 3,500 B",
    }


@pytest.mark.parametrize("kind", ["max_drop: 1", "max_ratio: 1", "min_improvement: 1"])
@pytest.mark.parametrize("figure", ["update_bytes", "delta_bytes"])
def test_an_update_is_compared_with_nothing_but_a_threshold(figure, kind):
    with pytest.raises(CollaboptError, match="only a threshold makes sense"):
        parse_policy(f"goals: [{{figure: {figure}, {kind}, against: champion}}]")


@pytest.mark.parametrize("policy", ["goals: [{figure: delta_bytes, threshold: 9}]", "priority: [delta_bytes]"])
def test_patches_need_a_place_where_the_champion_is_kept(gate, old, policy):
    with pytest.raises(CollaboptError, match="releases are kept nowhere"):
        gate(old, "", policy)
    assert figures(gate(old, "", "priority: [update_bytes]"))["update_bytes"]


def test_a_gate_killed_at_any_write_to_the_store_leaves_the_same_patches(gate, old, new, kill_before_change, tmp_path):
    gate(old, str(tmp_path / "champion"))

    def fresh(name):
        shutil.copytree(tmp_path / "champion", tmp_path / name)
        return tmp_path / name

    def released(directory):
        contents = {}
        for path in directory.rglob("*.*"):
            if path.is_file() and path.name not in ("report.html", "model_card.md", "model_card.json"):
                content = path.read_bytes()
                if path.parent.name == "releases":
                    content = {key: value for key, value in json.loads(content).items() if key != "created"}
                contents[path.relative_to(directory)] = content
        return contents

    whole = fresh("whole")
    done = kill_before_change(10_000, lambda: gate(new, str(whole)))
    expected = released(whole)
    assert [path for path in expected if path.name.startswith("delta-")]
    writes = [number for number, name in enumerate(done) if name in ("create", "replace")]
    assert len(writes) > 6
    for number in writes:
        directory = fresh(f"killed{number}")
        kill_before_change(number, lambda directory=directory: gate(new, str(directory)))
        gate(new, str(directory))
        assert released(directory) == expected, number
