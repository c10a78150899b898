"""The host: stages run in its forked processes, with the same outcome, the same errors and no leftovers."""

import errno
import os
import subprocess
import sys
import time

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.stage_host import SOCKET_VARIABLE, stage_host
from collabopt.components.engine.stages import run_stage

BAD_SETTINGS = {
    "stage": "pruned",
    "parent": "nowhere",
    "dataset": "nowhere",
    "output": "nowhere",
    "task": "nowhere:nothing",
    "settings": {"target_sparsity": 1.5},
    "overrides": {},
}


@pytest.fixture(scope="module")
def host():
    with stage_host():
        yield


def test_an_error_of_the_stage_is_raised_where_it_was_called(host):
    with pytest.raises(CollaboptError) as hosted_error:
        run_stage("prune", **BAD_SETTINGS)
    path = os.environ.pop(SOCKET_VARIABLE)
    with pytest.raises(CollaboptError) as direct_error:
        run_stage("prune", **BAD_SETTINGS)
    os.environ[SOCKET_VARIABLE] = path
    assert str(hosted_error.value) == str(direct_error.value)
    assert "target_sparsity=1.5" in str(hosted_error.value)


def test_an_unforeseen_failure_brings_its_traceback(host):
    with pytest.raises(RuntimeError, match="KeyError: 'no_such_technique'"):
        run_stage("no_such_technique", **BAD_SETTINGS)


def test_a_stage_ends_with_its_caller(host, tmp_path):
    """The stage blocks on reading its parent's record, a pipe that is never filled; its caller is killed meanwhile."""
    record = tmp_path / "stage.json"
    os.mkfifo(record)
    arguments = {**BAD_SETTINGS, "settings": {}, "parent": str(tmp_path)}
    program = f"from collabopt.components.engine.stages import run_stage; run_stage('prune', **{arguments!r})"
    with subprocess.Popen([sys.executable, "-c", program]) as caller:
        writer = wait_for(lambda: writer_if_read(record))
        caller.kill()
    try:
        wait_for(lambda: nobody_reads(writer))
    finally:
        os.close(writer)


def writer_if_read(pipe):
    """Opens a named pipe for writing; None while nobody reads it."""
    try:
        return os.open(pipe, os.O_WRONLY | os.O_NONBLOCK)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        return None


def nobody_reads(writer):
    try:
        os.write(writer, b" ")
    except BrokenPipeError:
        return True
    return False


def wait_for(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.1)
    raise AssertionError("the condition did not come true in time")
