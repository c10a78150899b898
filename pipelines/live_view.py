"""Shows a run while it is on: the tree that changes in place on a terminal, one line per event elsewhere."""

import time
from collections.abc import Mapping
from types import TracebackType
from typing import Protocol, Self

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.table import Table
from rich.text import Text

from collabopt.pipelines.run_state import Event, Phase, RunState, StageState

_STYLES = {
    Phase.WAITING: "dim",
    Phase.RUNNING: "cyan",
    Phase.DONE: "green",
    Phase.FAILED: "bold red",
    Phase.STOPPED: "yellow",
    Phase.SKIPPED: "dim",
}
_SUMMARY = {
    "sparsity": "sparsity {:.1%}",
    "tflite_bytes": "{:,.0f} bytes",
    "gzip_bytes": "gzip {:,.0f}",
    "npu_latency_ms": "npu {:.4g} ms",
}
# What the rest of a footprint begins with, and what chooses nothing in a run.
_FOOTPRINT = ("npu_", "host_", "activation_", "validation_")
_LEFT_OUT = {
    "test_samples",
    "zip_bytes",
    "packed_bytes",
    "float_operators",
    "broken_layers",
    "max_distinct_values_per_channel",
    "max_distinct_values_per_tensor",
}
_REFRESH_SECONDS = 0.25
_PLAIN_WIDTH = 160


class View(Protocol):
    """What a run needs of a display; a context manager."""

    def __enter__(self) -> Self:
        """Begins to show."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Shows the last state and leaves the terminal as it was."""

    def show(self, event: Event) -> None:
        """Shows one event, which the state has already taken in."""

    def refresh(self) -> None:
        """Shows the time that has passed."""


def view_for(console: Console, state: RunState, title: str) -> View:
    """Chooses the display: live on a terminal, plain lines elsewhere."""
    return TerminalView(console, state, title) if console.is_terminal else PlainView(console, title)


class TerminalView:
    """The tree, one line per stage, redrawn in place."""

    def __init__(self, console: Console, state: RunState, title: str) -> None:
        """See `view_for`."""
        self._tree = StageTable(state, title, time.time())
        self._live = Live(self._tree, console=console, auto_refresh=False, vertical_overflow="crop")
        self._drawn = 0.0

    def __enter__(self) -> Self:
        """Begins to draw."""
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Draws the whole tree a last time and gives the cursor back."""
        self._live.stop()

    def show(self, event: Event) -> None:
        """Draws at once."""
        self._draw()

    def refresh(self) -> None:
        """Draws a few times a second."""
        if time.monotonic() - self._drawn > _REFRESH_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._live.refresh()
        self._drawn = time.monotonic()


class PlainView:
    """One line per event, without control codes: for CI logs and pipes."""

    def __init__(self, console: Console, title: str) -> None:
        """See `view_for`."""
        self._console = Console(file=console.file, width=_PLAIN_WIDTH, no_color=True, highlight=False, soft_wrap=True)
        self._title = title
        self._began = time.time()

    def __enter__(self) -> Self:
        """Prints the title."""
        self._console.print(Text(self._title))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Prints the total time."""
        self._console.print(f"[{clock(time.time() - self._began)}] end", markup=False)

    def show(self, event: Event) -> None:
        """Prints the event."""
        details = describe_metrics(event.metrics)
        if event.kind == "epoch":
            details = f"{event.epoch}/{event.epochs}  {details}"
        if event.message:
            details = event.message.splitlines()[0]
        line = f"[{clock(event.time - self._began)}] {event.stage:<24}{event.kind:<10}{details}"
        self._console.print(line.rstrip(), markup=False)

    def refresh(self) -> None:
        """Nothing: a line that is printed stays."""


class StageTable:
    """All stages as a tree with what is known of each."""

    def __init__(self, state: RunState, title: str, began: float) -> None:
        """The table is drawn from the state as it is at the time of drawing."""
        self._state = state
        self._title = title
        self._began = began

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Draws title and table."""
        now = time.time()
        yield Text.assemble((self._title, "bold"), f"  {clock(now - self._began)}")
        table = Table.grid(padding=(0, 2))
        table.add_column(no_wrap=True)
        table.add_column(no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True, ratio=1)
        table.add_column(no_wrap=True, justify="right")
        guides = ("|-- ", "`-- ", "|   ") if options.ascii_only else ("├── ", "└── ", "│   ")
        for prefix, stage in _in_tree_order(list(self._state), guides):
            style = _STYLES[stage.phase]
            seconds = stage.seconds(now)
            table.add_row(
                Text.assemble((prefix, "dim"), (stage.name, "" if stage.phase == Phase.WAITING else "bold")),
                Text(_phase(stage), style=style),
                Text(stage.message.splitlines()[0] if stage.message else describe_metrics(stage.metrics)),
                Text("" if seconds is None else clock(seconds), style="dim"),
            )
        yield table


def describe_metrics(metrics: Mapping[str, float]) -> str:
    """One line for a stage's scalars: quality first, then sparsity and size.

    A metric and its `<name>_drop` are written as one, `accuracy 0.9750 (drop +0.0030)`.
    """
    parts = []
    for name, value in metrics.items():
        of_another = any(name.removesuffix(end) in metrics.keys() - {name} for end in ("_drop", "_low", "_high"))
        if name in _SUMMARY or name in _LEFT_OUT or name.startswith(_FOOTPRINT) or of_another:
            continue
        drop = metrics.get(f"{name}_drop")
        parts.append(f"{name.replace('_', ' ')} {_number(value)}" + ("" if drop is None else f" (drop {drop:+.4f})"))
    parts += [form.format(metrics[name]) for name, form in _SUMMARY.items() if name in metrics]
    return "  ".join(parts)


def clock(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, second = divmod(max(0, int(seconds)), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02}:{second:02}" if hours else f"{minute}:{second:02}"


def _number(value: float) -> str:
    if value.is_integer() and abs(value) >= 10:
        return f"{value:,.0f}"
    return f"{value:.2e}" if 0 < abs(value) < 1e-3 else f"{value:.4f}"


def _phase(stage: StageState) -> str:
    if stage.phase == Phase.RUNNING and stage.epochs:
        return f"epoch {stage.epoch}/{stage.epochs}"
    return str(stage.phase)


def _in_tree_order(
    stages: list[StageState], guides: tuple[str, str, str], parent: str | None = None, indent: str = ""
) -> list[tuple[str, StageState]]:
    branch, last, through = guides
    children = [stage for stage in stages if stage.parent == parent]
    rows: list[tuple[str, StageState]] = []
    for child in children:
        is_last = child is children[-1]
        prefix = "" if parent is None else indent + (last if is_last else branch)
        rows.append((prefix, child))
        below = "" if parent is None else indent + ("    " if is_last else through)
        rows += _in_tree_order(stages, guides, child.name, below)
    return rows
