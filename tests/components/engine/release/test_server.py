"""Through real MLflow servers: proxied artifacts, REST instead of SQL, and PostgreSQL behind it once."""

import os
import shutil
import socket
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient

from collabopt.components.engine.records import read_leaf_report
from collabopt.components.engine.release.object_store import Conflict, open_store
from collabopt.components.engine.release.operations import rollback
from collabopt.components.engine.release.pointer import champion_of
from collabopt.components.engine.release.promotion import Candidate, promote
from collabopt.components.engine.tracking import stage_run


def test_the_champion_of_a_server_predicts(served, examples, make_leaf):
    import mlflow.pyfunc

    leaf = make_leaf(examples[1])
    for _ in range(2):
        with stage_run("deployment_gate", tags={}) as run:
            candidate = Candidate(read_leaf_report(leaf), Path(leaf))
            promote(candidate, name="digits", store=None, seen=0, decision_digest="", run=run)
    assert [str(found.version) for found in served.search_model_versions("name='digits'")] == ["1"]
    model = mlflow.pyfunc.load_model("models:/digits@champion")
    np.testing.assert_allclose(model.predict(examples[1].x), examples[1].y, atol=0.02)


@pytest.fixture
def postgresql():
    """URI of a database of a PostgreSQL server of its own."""
    programs = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)), None)
    if programs is None and shutil.which("initdb"):
        programs = Path(shutil.which("initdb")).resolve().parent
    if programs is None or not (programs / "pg_ctl").exists():
        pytest.skip("there is no PostgreSQL server on this machine")
    # Not below pytest's directories, which are closed to the user that the server runs as.
    directory = Path(tempfile.mkdtemp(prefix="collabopt-postgresql-"))
    as_user = []
    if os.geteuid() == 0:
        if not shutil.which("runuser"):
            pytest.skip("PostgreSQL does not run as root, and there is no `runuser`")
        as_user = ["runuser", "-u", "nobody", "--"]
        shutil.chown(directory, "nobody")
    data = directory / "data"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # What it says goes to a file: the server would keep a pipe open for as long as it runs.
    with open(directory / "log", "wb") as log:

        def do(program, *arguments):
            command = [*as_user, str(programs / program), *arguments]
            ended = subprocess.run(command, cwd=directory, stdout=log, stderr=log, timeout=60)
            assert ended.returncode == 0, (directory / "log").read_text()

        do("initdb", "-D", str(data), "-A", "trust", "-U", "mlflow", "--no-sync")
        options = f"-c listen_addresses=127.0.0.1 -p {port} -k {directory} -c fsync=off"
        do("pg_ctl", "-D", str(data), "-o", options, "-w", "start")
        try:
            do("createdb", "-h", "127.0.0.1", "-p", str(port), "-U", "mlflow", "mlflow")
            yield f"postgresql+psycopg2://mlflow@127.0.0.1:{port}/mlflow"
        finally:
            do("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
            shutil.rmtree(directory)


def test_a_race_and_a_rollback_over_postgresql(
    postgresql, serve_mlflow, surroundings, tmp_path, monkeypatch, make_candidate, new_run, ship, in_child, registered
):
    address = serve_mlflow(postgresql).address
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    client, store = MlflowClient(tracking_uri=address), open_store(str(tmp_path / "released"))

    def gate(candidate):
        run = new_run(client)
        while True:
            try:
                return ship(store, candidate, run, "kws")
            except Conflict:
                continue

    candidates = [make_candidate(number) for number in (0, 1, 2, 2)]
    waits = [in_child(lambda candidate=candidate: gate(candidate)) for candidate in candidates]
    assert [wait() for wait in waits] == [0] * len(candidates)
    for _ in range(2):
        pointer = champion_of(store, "kws")[0]
        aliases, versions = registered(client, "kws")
        assert sorted(versions) == sorted({candidate.sha256 for candidate in candidates})
        assert {len(numbers) for numbers in versions.values()} == {1}
        assert aliases == {"champion": versions[pointer.champion][0], "previous": versions[pointer.previous][0]}
        if not pointer.withdrawn:
            rollback(store, "kws")
