import io
import re
import time

from rich.console import Console

from collabopt.pipelines.live_view import PlainView, TerminalView, clock, describe_metrics, view_for
from collabopt.pipelines.run_state import Event, RunState, WatchedStage

STAGES = (
    WatchedStage("baseline"),
    WatchedStage("ptq", "baseline"),
    WatchedStage("pruned", "baseline"),
    WatchedStage("pruned_clustered", "pruned"),
    WatchedStage("pcqat", "pruned_clustered"),
    WatchedStage("gate"),
)


def shown(events: list[Event], console: Console) -> str:
    state = RunState(STAGES)
    with view_for(console, state, "exhaustive -> [out]") as view:
        for event in events:
            state.apply(event)
            view.show(event)
        view.refresh()
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def without_codes(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text)


def terminal(**options: int) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, _environ={}, **options)


def test_plain_output_has_one_line_per_event_and_no_control_codes():
    now = time.time()
    events = [
        Event("pruned", "started", now + 0.5),
        Event("pruned", "epoch", now + 61.5, {"loss": 0.5}, epoch=1, epochs=2),
        Event("pruned", "failed", now + 70.5, message="[bold] is too high\n  to do: halve it"),
    ]
    text = shown(events, Console(file=io.StringIO(), width=40))
    assert "\x1b" not in text
    lines = text.splitlines()
    assert lines[0] == "exhaustive -> [out]"
    assert [line.split() for line in lines[1:4]] == [
        ["[0:00]", "pruned", "started"],
        ["[1:01]", "pruned", "epoch", "1/2", "loss", "0.5000"],
        ["[1:10]", "pruned", "failed", "[bold]", "is", "too", "high"],
    ]
    assert len(lines) == 5


def test_the_terminal_shows_the_tree_with_states():
    now = time.time()
    events = [
        Event("baseline", "started", now - 3.5),
        Event("baseline", "finished", now, {"f1": 0.94}),
        Event("pruned", "started", now),
        Event("pruned", "epoch", now, {"f1": 0.91}, epoch=2, epochs=3),
        Event("ptq", "failed", now, message="no space\nleft"),
    ]
    last_frame = without_codes(shown(events, terminal())).rpartition("exhaustive -> [out]")[2]
    rows = [line.rstrip() for line in last_frame.splitlines()[1:7]]
    assert rows[0].split() == ["baseline", "done", "f1", "0.9400", "0:03"]
    assert rows[1].split() == ["├──", "ptq", "failed", "no", "space"]
    assert rows[2].split() == ["└──", "pruned", "epoch", "2/3", "f1", "0.9100", "0:00"]
    assert rows[3].split() == ["└──", "pruned_clustered", "waiting"]
    assert rows[4].startswith("        └── pcqat")
    assert rows[5].split() == ["gate", "waiting"]


def test_a_low_terminal_is_not_overrun_until_the_end():
    output = shown([], terminal(height=4))
    first_frame, _, last_frame = output.rpartition("exhaustive -> [out]")
    assert "gate" not in first_frame
    assert "gate" in last_frame


def test_the_view_fits_what_it_writes_to():
    state = RunState(STAGES)
    assert isinstance(view_for(terminal(), state, ""), TerminalView)
    assert isinstance(view_for(Console(file=io.StringIO()), state, ""), PlainView)


def test_metrics_are_told_with_quality_first_and_size_last():
    metrics = {"tflite_bytes": 20480.0, "zip_bytes": 11.0, "mean_iou": 0.5, "mean_iou_drop": -0.01, "sparsity": 0.5}
    assert describe_metrics(metrics) == "mean iou 0.5000 (drop -0.0100)  sparsity 50.0%  20,480 bytes"
    footprint = {"npu_latency_ms": 0.0352, "npu_macs": 277972.0, "host_latency_ms": 0.01, "activation_bytes": 6144.0}
    interval = {"accuracy": 0.98, "accuracy_low": 0.96, "accuracy_high": 0.99, "test_samples": 359.0}
    assert describe_metrics({**interval, **footprint}) == "accuracy 0.9800  npu 0.0352 ms"
    assert describe_metrics({"loss": 0.00012, "train_samples": 1500.0}) == "loss 1.20e-04  train samples 1,500"


def test_time_is_told_in_minutes_and_hours():
    assert [clock(seconds) for seconds in (0, 59.9, 61, 3725)] == ["0:00", "0:59", "1:01", "1:02:05"]
