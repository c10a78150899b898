"""What is known of a running pipeline: progress events folded into one state per stage."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path


class Phase(StrEnum):
    """Where a stage stands."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class WatchedStage:
    """A stage that a run is expected to have.

    Attributes:
        name: Name under which the stage reports its progress.
        parent: Stage that it hangs below in the display; None at the top.
        optional: Only shown once it has begun.
    """

    name: str
    parent: str | None = None
    optional: bool = False


@dataclass(frozen=True)
class Event:
    """One line of the progress file.

    Attributes:
        stage: Stage that reports.
        kind: `started`, `epoch`, `finished`, `skipped` or `failed`.
        time: Seconds since the epoch.
        metrics: Scalars, of an epoch or of the finished stage.
        epoch: Epoch just ended, counted from 1; 0 for other events.
        epochs: Epochs in all.
        message: Why a stage failed or is not trained, or what it has found.
    """

    stage: str
    kind: str
    time: float
    metrics: Mapping[str, float] = field(default_factory=dict)
    epoch: int = 0
    epochs: int = 0
    message: str = ""


@dataclass(frozen=True)
class StageState:
    """One stage as far as its events tell.

    Attributes:
        name: Name of the stage.
        parent: See `WatchedStage`.
        optional: See `WatchedStage`.
        phase: Where it stands.
        started: When it began, seconds since the epoch; None while waiting.
        ended: When it ended.
        epoch: Last epoch that ended.
        epochs: Epochs in all.
        metrics: The latest scalars.
        message: Why it failed or is not trained, or what it has found.
    """

    name: str
    parent: str | None = None
    optional: bool = False
    phase: Phase = Phase.WAITING
    started: float | None = None
    ended: float | None = None
    epoch: int = 0
    epochs: int = 0
    metrics: Mapping[str, float] = field(default_factory=dict)
    message: str = ""

    def seconds(self, now: float) -> float | None:
        """Time spent in the stage until it ended, or until now; None when it never began."""
        if self.started is None:
            return None
        return (now if self.ended is None else self.ended) - self.started


class RunState:
    """All stages of one run, in the order in which they are shown."""

    def __init__(self, stages: Iterable[WatchedStage]) -> None:
        """Begins with every expected stage waiting."""
        self._states = {stage.name: StageState(stage.name, stage.parent, stage.optional) for stage in stages}

    def __iter__(self) -> Iterator[StageState]:
        """States to show, in order of display."""
        return (state for state in self._states.values() if state.started is not None or not state.optional)

    def __getitem__(self, name: str) -> StageState:
        """State of one stage."""
        return self._states[name]

    def of_phase(self, phase: Phase) -> list[StageState]:
        """Stages that stand there."""
        return [state for state in self if state.phase == phase]

    def apply(self, event: Event) -> None:
        """Takes in one event; a stage that nobody expected is appended at the top level."""
        state = self._states.get(event.stage, StageState(event.stage))
        match event.kind:
            case "started":  # a retried stage starts anew
                state = StageState(state.name, state.parent, state.optional, Phase.RUNNING, started=event.time)
            case "epoch":
                state = replace(state, epoch=event.epoch, epochs=event.epochs, metrics=event.metrics)
            case "finished":
                state = replace(state, phase=Phase.DONE, ended=event.time, metrics=event.metrics, message=event.message)
            case "skipped":
                state = replace(state, phase=Phase.SKIPPED, ended=event.time, message=event.message)
            case "failed":
                state = replace(state, phase=Phase.FAILED, ended=event.time, message=event.message)
        self._states[event.stage] = state

    def close(self, now: float, *, stopped: bool) -> None:
        """Settles what is open when the pipeline has ended.

        Args:
            now: When it ended, seconds since the epoch.
            stopped: Whether it was made to end; else stages that still ran must have failed.
        """
        for name, state in self._states.items():
            if state.phase == Phase.RUNNING:
                self._states[name] = replace(state, phase=Phase.STOPPED if stopped else Phase.FAILED, ended=now)
            elif state.phase == Phase.WAITING:
                self._states[name] = replace(state, phase=Phase.SKIPPED)


class EventFollower:
    """Reads the progress file as it grows."""

    def __init__(self, path: Path) -> None:
        """The file need not exist yet."""
        self._path = path
        self._offset = 0

    def read(self) -> list[Event]:
        """Returns the events appended since the last call; an unfinished last line is left for the next."""
        if not self._path.exists():
            return []
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            text = file.read()
        complete = text[: text.rfind(b"\n") + 1]
        self._offset += len(complete)
        return [event for line in complete.splitlines() if (event := _parse(line))]


def _parse(line: bytes) -> Event | None:
    # A process killed within its write leaves half a line, and the next writer's event is glued to it.
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    if not isinstance(fields, dict) or not {"stage", "event", "time"} <= fields.keys():
        return None
    metrics = fields.get("metrics") or {}
    return Event(
        stage=str(fields["stage"]),
        kind=str(fields["event"]),
        time=float(fields["time"]),
        metrics={str(name): float(value) for name, value in metrics.items() if isinstance(value, int | float)},
        epoch=int(fields.get("epoch") or 0),
        epochs=int(fields.get("epochs") or 0),
        message=str(fields.get("message") or ""),
    )
