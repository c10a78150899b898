"""Work in forked processes: several at a time, and no failure is lost."""

import os
import signal
import sys
import time

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.forked import run_forked


def test_every_work_has_a_process_of_its_own_and_its_result_comes_back():
    found = dict(run_forked([lambda number=number: [number, os.getpid()] for number in range(5)], 2))
    assert {number: result[0] for number, result in found.items()} == {number: number for number in range(5)}
    assert len({result[1] for result in found.values()} | {os.getpid()}) == 6


def test_so_many_run_at_a_time(tmp_path):
    def meet(number):
        (tmp_path / f"{number}").touch()
        deadline = time.monotonic() + 20
        while not (tmp_path / f"{1 - number}").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        return len(list(tmp_path.iterdir()))

    works = [lambda: meet(0), lambda: meet(1)]
    assert dict(run_forked(works, 2)) == {0: 2, 1: 2}


def test_an_error_for_the_user_comes_back_as_it_was_raised():
    def refuse():
        raise CollaboptError("it cannot be", where="here", todo="do that")

    with pytest.raises(CollaboptError) as refusal:
        list(run_forked([refuse], 1))
    assert (refusal.value.what, refusal.value.where, refusal.value.todo) == ("it cannot be", "here", "do that")


def test_a_fault_comes_back_with_its_traceback():
    with pytest.raises(RuntimeError, match="ZeroDivisionError"):
        list(run_forked([lambda: 1 / 0], 1))


def test_a_process_that_dies_is_told_of():
    with pytest.raises(CollaboptError, match="died with exit code -9"):
        list(run_forked([lambda: os.kill(os.getpid(), signal.SIGKILL)], 1))


def test_what_still_runs_is_ended_with_the_iteration(tmp_path):
    def wait_for_ever():
        (tmp_path / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(1)

    def end():
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
            time.sleep(0.01)
        return "done"

    results = run_forked([wait_for_ever, end], 2)
    assert next(results) == (1, "done")
    results.close()
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_what_processes_print_goes_to_the_log(tmp_path, capfd):
    list(run_forked([lambda: os.write(1, b"loud\n")], 1, tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "loud\n"
    assert capfd.readouterr().out == ""


def test_output_does_not_go_through_what_the_parent_has_put_before_it(tmp_path, monkeypatch):
    """A live display, for one, whose lock nobody releases in a fork."""

    class Locked:
        def write(self, text):
            raise AssertionError("the lock is held for ever")

        def flush(self):
            """The parent does, before it forks."""

    monkeypatch.setattr(sys, "stdout", Locked())
    list(run_forked([lambda: print("loud", flush=True)], 1, tmp_path / "log"))
    assert (tmp_path / "log").read_text() == "loud\n"
