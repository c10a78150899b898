"""Runs a pipeline on this machine: in a process group of its own, watched by events, published when it succeeds."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.progress import PROGRESS_FILE_VARIABLE
from collabopt.components.engine.records import DECISION_FILE
from collabopt.components.engine.session import (
    LOG_DIRECTORY_VARIABLE,
    PIPELINE_NAME_VARIABLE,
    PIPELINE_RUN_ID_VARIABLE,
)
from collabopt.pipelines.live_view import View, view_for
from collabopt.pipelines.local_worker import LIFELINE_VARIABLE
from collabopt.pipelines.outcome import Outcome, check_qualified, print_outcome, read_outcome
from collabopt.pipelines.output_directory import OutputDirectory, open_output
from collabopt.pipelines.run_state import EventFollower, Phase, RunState, StageState, WatchedStage

PIPELINE_LOG = "pipeline"

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 5.0
_KILL_SECONDS = 1.0  # SIGKILL works at once, but what nobody reaps stays in the group for ever
_PIPELINE_ROOT = "root"
_PROGRESS_FILE = "progress.jsonl"
# MLFLOW_RUN_ID would make every stage attach to the one run of the caller.
_NOT_INHERITED = {"PYTHONDONTWRITEBYTECODE", "MLFLOW_RUN_ID"}
_CONTROL_CODES = re.compile(r"\x1b\[[0-9;]*m")


@dataclass(frozen=True)
class LocalRun:
    """What to run and where.

    Attributes:
        pipeline: Import path of the pipeline function (`module:attribute`).
        name: Name of the pipeline, as people know it.
        arguments: Arguments of the pipeline function; JSON-serialisable.
        output: Directory for the result.
        tracking_uri: MLflow tracking URI that the stages log to.
        stages: What the live view shows from the start.
        old_logs: Further log names that an earlier run may have left in the same output directory.
        stage_host: Import what stages need once, and fork their processes from there (see `engine/stage_host.py`).
        pipeline_root: Where tasks leave their outputs; None for a place that goes with the run.
    """

    pipeline: str
    name: str
    arguments: Mapping[str, object]
    output: Path
    tracking_uri: str
    stages: tuple[WatchedStage, ...] = ()
    old_logs: tuple[str, ...] = ()
    stage_host: bool = False
    pipeline_root: Path | None = None


def run_locally(run: LocalRun, console: Console, *, on_failure: Callable[[str], None] | None = None) -> Outcome:
    """Runs a pipeline, shows it, and publishes leaves and decision.

    Args:
        run: What to run and where.
        console: Where progress and the final tables are shown; live on a terminal, line by line elsewhere.
        on_failure: Called with the run id when the pipeline failed or was interrupted.

    Returns:
        The outcome; its paths are only valid while the pipeline ran, the published files are below `run.output`.

    Raises:
        CollaboptError: A stage failed, or the output directory is in use; an earlier result stays as it was. Or no leaf
            qualifies, and the policy lets the run fail over it; then the result is published and shown nevertheless.
        KeyboardInterrupt: SIGINT or SIGTERM arrived; every process of the run has ended.
    """
    run_id = str(uuid.uuid4())
    state = RunState(run.stages)
    with _deferred_signals() as signals, open_output(run.output.absolute()) as output:
        output.clear_logs({PIPELINE_LOG, *run.old_logs, *(stage.name for stage in run.stages)})
        with view_for(console, state, title=f"{run.name} -> {run.output}") as view:
            exit_code = _execute(run, run_id, output, state, view, signals)
        try:
            if signals.received:
                raise KeyboardInterrupt
            if exit_code != 0 and not _fails_by_its_policy(output.work / _PIPELINE_ROOT):
                raise _failure(state, output.logs, exit_code)
            outcome = read_outcome(output.work / _PIPELINE_ROOT)
        except (KeyboardInterrupt, CollaboptError):
            tell_failure(run_id, on_failure, console)
            raise
        output.publish(outcome.directories, outcome.decision_file)
    now = time.time()
    print_outcome(console, outcome, {stage.name: seconds for stage in state if (seconds := stage.seconds(now))})
    if outcome.decision.failed:
        tell_failure(run_id, on_failure, console)
    check_qualified(outcome.decision, run.output)
    return outcome


def run_part(
    run: LocalRun,
    run_id: str,
    output: OutputDirectory,
    console: Console,
    *,
    title: str,
) -> RunState:
    """Runs a pipeline, shows it, and leaves its outputs where they are: one of several that make up a whole.

    Args:
        run: What to run; it needs a `pipeline_root`.
        run_id: Pipeline run that its stages belong to, together with those of the others.
        output: The whole's output directory, with a working directory for this run alone.
        console: See `run_locally`.
        title: What this part is.

    Returns:
        What became of every stage.

    Raises:
        CollaboptError: A stage failed.
        KeyboardInterrupt: See `run_locally`.
    """
    state = RunState(run.stages)
    with _deferred_signals() as signals:
        output.clear_logs({PIPELINE_LOG, *(stage.name for stage in run.stages)})
        with view_for(console, state, title=title) as view:
            exit_code = _execute(run, run_id, output, state, view, signals)
    if signals.received:
        raise KeyboardInterrupt
    if exit_code != 0:
        raise _failure(state, output.logs, exit_code)
    return state


class _Signals:
    """How many signals have asked the run to end."""

    def __init__(self) -> None:
        self.received = 0

    def receive(self, *_: object) -> None:
        self.received += 1


@contextlib.contextmanager
def _deferred_signals() -> Iterator[_Signals]:
    """Counts SIGINT, SIGTERM and SIGHUP instead of acting on them, so that no cleanup is ever cut short."""
    signals = _Signals()
    saved = {
        number: signal.signal(number, signals.receive) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    }
    try:
        yield signals
    finally:
        for number, handler in saved.items():
            signal.signal(number, handler)


def _execute(
    run: LocalRun, run_id: str, output: OutputDirectory, state: RunState, view: View, signals: _Signals
) -> int:
    """Runs the worker to its end, feeding the view, and returns its exit code."""
    events = EventFollower(output.work / _PROGRESS_FILE)
    lifeline, held = os.pipe()
    try:
        with open(output.logs / f"{PIPELINE_LOG}.log", "wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "collabopt.pipelines.local_worker", str(_write_job(run, output))],
                env=_environment(run, run_id, output) | {LIFELINE_VARIABLE: str(lifeline)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=[lifeline],
                start_new_session=True,
            )
        try:
            running = True
            while running and not signals.received:
                running = _is_running(process)  # asked first, so that the last events are not missed
                for event in events.read():
                    state.apply(event)
                    view.show(event)
                view.refresh()
                if running:
                    time.sleep(_POLL_SECONDS)
        finally:
            _end_group(process, signals)
    finally:
        os.close(lifeline)
        os.close(held)
    state.close(time.time(), stopped=bool(signals.received))
    view.refresh()
    return process.returncode


def _write_job(run: LocalRun, output: OutputDirectory) -> Path:
    path = output.work / "job.json"
    job = {
        "pipeline": run.pipeline,
        "arguments": dict(run.arguments),
        "pipeline_root": str(run.pipeline_root or output.work / _PIPELINE_ROOT),
        "workspace_root": str(output.work / "workspace"),
        "stage_host": run.stage_host,
    }
    path.write_text(json.dumps(job), encoding="utf-8")
    return path


def _environment(run: LocalRun, run_id: str, output: OutputDirectory) -> dict[str, str]:
    scratch = output.work / "tmp"
    scratch.mkdir()
    environment = {name: value for name, value in os.environ.items() if name not in _NOT_INHERITED}
    environment.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    return environment | {
        PROGRESS_FILE_VARIABLE: str(output.work / _PROGRESS_FILE),
        LOG_DIRECTORY_VARIABLE: str(output.logs),
        PIPELINE_RUN_ID_VARIABLE: run_id,
        PIPELINE_NAME_VARIABLE: f"{run.name}-{run_id[:8]}",
        "MLFLOW_TRACKING_URI": run.tracking_uri,
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(scratch),  # kfp leaves a directory there for every task
    }


def _is_running(process: subprocess.Popen[bytes]) -> bool:
    # The worker is not reaped yet: its id, which is that of its group, cannot be given to another process meanwhile.
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None


def _end_group(process: subprocess.Popen[bytes], signals: _Signals) -> None:
    """Ends whatever is left of the worker's group: SIGTERM, a grace, SIGKILL; one more signal ends the grace."""
    before = signals.received
    deadline = time.monotonic() + _GRACE_SECONDS
    os.killpg(process.pid, signal.SIGTERM)
    while _group_exists(process) and time.monotonic() < deadline and signals.received == before:
        time.sleep(_POLL_SECONDS / 2)
    deadline = time.monotonic() + _KILL_SECONDS
    while _group_exists(process) and time.monotonic() < deadline:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        time.sleep(_POLL_SECONDS / 2)


def _group_exists(process: subprocess.Popen[bytes]) -> bool:
    process.poll()
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True


def _fails_by_its_policy(pipeline_root: Path) -> bool:
    """Whether the gate came to a decision which its policy wants to be a failure."""
    return any(pipeline_root.rglob(DECISION_FILE)) and read_outcome(pipeline_root).decision.failed


def tell_failure(run_id: str, on_failure: Callable[[str], None] | None, console: Console) -> None:
    """Lets the caller know, without letting its own troubles hide the failure; see `run_locally`."""
    if on_failure is None:
        return
    try:
        on_failure(run_id)
    except CollaboptError as error:
        console.print(f"the MLflow run could not be marked as failed: {error}", markup=False)


def _failure(state: RunState, logs: Path, exit_code: int) -> CollaboptError:
    failed = state.of_phase(Phase.FAILED)
    if not failed:
        return CollaboptError(
            f"the pipeline ended with exit code {exit_code}, and no stage says why\n"
            + _tail(logs, PIPELINE_LOG).rstrip()
            + _log_line(logs, PIPELINE_LOG)
        )
    first = min(failed, key=lambda stage: stage.ended or 0.0)
    others = "".join(f"\nstage '{stage.name}' failed too" for stage in failed if stage is not first)
    return CollaboptError(f"stage '{first.name}' failed: {_why(first, logs)}{_log_line(logs, first.name)}{others}")


def _why(stage: StageState, logs: Path) -> str:
    if stage.message:
        return stage.message
    tails = _tail(logs, stage.name) + _tail(logs, PIPELINE_LOG, lines=5)
    return f"its process ended without a message; was it killed for want of memory?\n{tails}".rstrip()


def _log_line(logs: Path, name: str) -> str:
    path = logs / f"{name}.log"
    return f"\n  log: {path if path.exists() else logs / f'{PIPELINE_LOG}.log'}"


def _tail(logs: Path, name: str, lines: int = 20) -> str:
    path = logs / f"{name}.log"
    if not path.exists():
        return ""
    text = _CONTROL_CODES.sub("", path.read_text(encoding="utf-8", errors="replace"))
    last = [line.rstrip() for line in text.splitlines() if line.strip()][-lines:]
    return "".join(f"  | {line}\n" for line in last)
