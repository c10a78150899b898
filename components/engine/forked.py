"""Runs pieces of work in forked processes of their own, several at a time.

What a process has imported, its forks need not import again; but TensorFlow must not have computed anything in it.
"""

import contextlib
import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from collabopt.components.engine.answers import answer_of, result_of


@dataclass(frozen=True)
class _Running:
    number: int
    process: BaseProcess


def run_forked(
    works: Sequence[Callable[[], Any]], processes: int, log: Path | None = None
) -> Iterator[tuple[int, Any]]:
    """Forks for every piece of work, and ends what still runs when whoever iterates stops.

    Args:
        works: Each returns something that JSON can hold.
        processes: At most so many at a time.
        log: File that the processes append what they print to; None to let them print where this process prints.

    Yields:
        (number of the work, what it returned), in the order in which they end.

    Raises:
        CollaboptError: Some work has raised it, or its process has died.
        RuntimeError: Some work has failed otherwise.
    """
    waiting = list(enumerate(works))[::-1]
    running: dict[Connection, _Running] = {}
    try:
        while waiting or running:
            while waiting and len(running) < processes:
                number, work = waiting.pop()
                answers, process = _fork(work, log)
                running[answers] = _Running(number, process)
            ready = wait(list(running))
            for answers in [each for each in running if each in ready]:
                ended = running.pop(answers)
                yield ended.number, result_of(_answer(answers, ended.process))
    finally:
        for each in running.values():
            each.process.kill()
            each.process.join()


def _fork(work: Callable[[], Any], log: Path | None) -> tuple[Connection, BaseProcess]:
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(target=_run, args=[work, sender, log], daemon=True)
    process.start()
    sender.close()
    return receiver, process


def _run(work: Callable[[], Any], sender: Connection, log: Path | None) -> None:
    """In the forked process, which ends here: what its parent has registered to do on exit is not its own.

    Nor is what its parent has put before the output, as rich's live display, whose lock may be held for ever here.
    """
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
    if log is not None:
        with log.open("ab", buffering=0) as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
    answer = json.dumps(answer_of(work)).encode()
    with contextlib.suppress(BrokenPipeError):
        sender.send_bytes(answer)


def _answer(receiver: Connection, process: BaseProcess) -> dict[str, Any]:
    try:
        return json.loads(receiver.recv_bytes())
    except EOFError:
        process.join()
        died = f"a process has died with exit code {process.exitcode}; was it killed for want of memory?"
        return {"error": {"what": died, "where": "", "todo": "free some memory and try again"}}
    finally:
        receiver.close()
        process.join()
