"""Runs one piece of work in a forked process of its own, within limits, and tells what it took."""

import json
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLL_SECONDS = 0.1
HANGS_AFTER_LIMITS = 20
LONGEST_ERROR = 300


@dataclass(frozen=True)
class Outcome:
    """How a process ended.

    Attributes:
        status: `ok`, `error` (it raised), `crash` (it died), `timeout` or `memory`.
        seconds: Wall time from the fork to the end.
        cpu_seconds: Processor time of all its threads; tells more than wall time on a machine that is shared.
        peak_gb: Largest resident set; what the parent has imported counts, as it would in a fresh process.
        result: What the work returned, if it is `ok`.
        error: First sentence of what went wrong, otherwise.
    """

    status: str
    seconds: float
    cpu_seconds: float
    peak_gb: float
    result: Any = None
    error: str = ""


def run_measured(work: Callable[[], Any], directory: Path, name: str, limit_s: float, limit_gb: float) -> Outcome:
    """Forks, runs, waits.

    Args:
        work: Returns something that JSON can hold.
        directory: The process runs in it, and leaves `<name>.log` there.
        name: Name for the files.
        limit_s: Processor time after which the process is killed, so that other work on the machine does not count; or
            twenty times as much wall time, for a process that waits for ever.
        limit_gb: Resident set beyond which it is killed.
    """
    started = time.perf_counter()
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os.setsid()  # what it starts in its turn ends with it
        _run(work, directory, name)
    stopped = ""
    try:
        while True:
            ended, exit_status, usage = os.wait4(pid, os.WNOHANG)
            if ended:
                break
            hangs = time.perf_counter() - started > HANGS_AFTER_LIMITS * limit_s
            stopped = stopped or _beyond(pid, limit_s, limit_gb) or ("timeout" if hangs else "")
            if stopped:
                os.killpg(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)
    except BaseException:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    took = (time.perf_counter() - started, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1e6)
    if stopped:
        reached = f"{limit_s:.0f} s of processor time" if stopped == "timeout" else f"{limit_gb:g} GB"
        return Outcome(stopped, *took, error=f"stopped at {reached}")
    if os.waitstatus_to_exitcode(exit_status) != 0:
        return Outcome("crash", *took, error=_last_words(directory / f"{name}.log", exit_status))
    answer = json.loads((directory / f"{name}.outcome.json").read_text(encoding="utf-8"))
    return Outcome("error" if answer["error"] else "ok", *took, **answer)


def _run(work: Callable[[], Any], directory: Path, name: str) -> None:
    """The forked process; never returns."""
    try:
        os.chdir(directory)
        log = os.open(f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        answer = {"result": None, "error": ""}
        try:
            answer["result"] = work()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong is the result
            traceback.print_exc()
            answer["error"] = _first_sentence(error)
        Path(f"{name}.outcome.json").write_text(json.dumps(answer), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    finally:
        os._exit(1)


def _beyond(pid: int, limit_s: float, limit_gb: float) -> str:
    # Behind the command's name, which may hold anything: user and system time are fields 14 and 15 of proc(5).
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    if (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") > limit_s:
        return "timeout"
    resident_pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
    return "memory" if resident_pages * os.sysconf("SC_PAGE_SIZE") > limit_gb * 1e9 else ""


def _first_sentence(error: Exception) -> str:
    text = " ".join(str(getattr(error, "what", error)).split()).split(". ")[0][:LONGEST_ERROR]
    return f"{type(error).__name__}: {text}"


def _last_words(log: Path, exit_status: int) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").split("\n") if log.is_file() else []
    last = next((line.strip() for line in reversed(lines) if line.strip()), "")
    return f"exit status {os.waitstatus_to_exitcode(exit_status)}: {last[:LONGEST_ERROR]}"
