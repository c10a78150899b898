"""Eight gates with eight winners at once."""

import os
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.gate.candidates import read_candidates
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.gate.run import Gate, run_gate
from collabopt.components.engine.gate.sample import TestSamples
from collabopt.components.engine.policy.policy import parse_policy
from collabopt.components.engine.records import Proof, StageRecord, read_leaf_report, write_record
from collabopt.components.engine.release.object_store import Conflict, open_store
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.releases import read_release, releases, verify
from collabopt.components.engine.training.task import DEFAULT_TASK, load_task

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


@pytest.fixture
def gates(make_leaf, examples, bucket_uri):
    """Whole gates, each with a leaf of its own, every one smaller than the one before: digests, and what runs one."""
    samples = TestSamples(examples[0].x, examples[0].y.argmax(axis=-1))
    made = []
    for number in range(GATES):
        leaf = Path(make_leaf(examples[0], variant=np.random.default_rng(number).bytes(64 * (GATES - number))))
        outputs = predict((leaf / "model.tflite").read_bytes(), samples.inputs)
        proof = Proof(samples=len(samples.labels), metrics=load_task(DEFAULT_TASK).measure(outputs, samples.labels))
        report = read_leaf_report(leaf).model_copy(update={"task": DEFAULT_TASK, "proof": proof})
        write_record(report, leaf)
        baseline = StageRecord(
            lineage=report.lineage[:1], task=report.task, dataset_digest=report.dataset_digest, metric=report.metric
        )
        made.append((report.deployed.sha256, read_candidates(baseline, {"ptq": leaf})))

    def run(number, policy, name, output):
        os.environ["COLLABOPT_PIPELINE_RUN_ID"] = f"{name}-{number}"
        gate = Gate(made[number][1], parse_policy(policy), lambda limit: samples, name, bucket_uri)
        run_gate(gate, output / str(number), {})

    return [sha256 for sha256, _ in made], run


def race_whole(gates, in_child, policy, name, output):
    waits = [in_child(lambda number=number: gates[1](number, policy, name, output)) for number in range(GATES)]
    assert [wait() for wait in waits] == [0] * GATES
    return [Decision.model_validate_json((output / f"{number}/decision.json").read_bytes()) for number in range(GATES)]


def check_ending(store, client, registered, name):
    """One champion, every release whole, the registry as the pointer: returns the pointer and digest -> status."""
    pointer, _ = champion_of(store, name)
    for release in releases(store, name):
        verify(store, release.manifest)
    aliases, versions = registered(client, name)
    assert {len(numbers) for numbers in versions.values()} == {1}
    wanted = {"champion": pointer.champion, "previous": pointer.previous}
    assert aliases == {alias: versions[sha256][0] for alias, sha256 in wanted.items() if sha256}
    found = client.search_model_versions(f"name='{name}'")
    return pointer, {version.tags["sha256"]: version.tags["validation_status"] for version in found}


def test_whole_gates_with_different_winners(gates, in_child, served, bucket_uri, registered, tmp_path):
    decisions = race_whole(gates, in_child, "goals: []", "whole", tmp_path)
    assert [decision.winner_sha256 for decision in decisions] == gates[0]
    pointer, status = check_ending(open_store(bucket_uri), served, registered, "whole")
    assert sorted(pointer.history) == sorted(gates[0])
    assert status == dict.fromkeys(gates[0], "approved")


def test_whole_gates_that_must_improve_on_the_champion(gates, in_child, served, bucket_uri, registered, tmp_path):
    """Each decides against the champion that there is when it ships: only ever a smaller one follows."""
    policy = "goals: [{figure: packed_bytes, min_improvement: 1, against: champion}]"
    decisions = race_whole(gates, in_child, policy, "better", tmp_path)
    pointer, status = check_ending(open_store(bucket_uri), served, registered, "better")
    order = [gates[0].index(sha256) for sha256 in pointer.history]
    assert order == sorted(order) and order[-1] == GATES - 1
    shipped = {decision.winner_sha256 for decision in decisions} - {None}
    assert shipped == set(pointer.history)
    assert {sha256 for sha256, said in status.items() if said == "approved"} == shipped
    assert {said for sha256, said in status.items() if sha256 not in shipped} <= {"pending"}
    (experiment,) = served.search_experiments(filter_string="name = 'collabopt'")
    parents = served.search_runs([experiment.experiment_id], "tags.`kfp.pipeline_run_id` LIKE 'better-%'")
    assert len(parents) == GATES
    for parent in parents:
        number = int(parent.data.tags["kfp.pipeline_run_id"].rpartition("-")[2])
        assert parent.info.status == "FINISHED"
        assert parent.data.tags["winner_sha256"] == (decisions[number].winner_sha256 or "none")
