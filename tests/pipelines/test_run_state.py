import json
from pathlib import Path

from collabopt.pipelines.run_state import Event, EventFollower, Phase, RunState, WatchedStage


def line(stage: str, event: str, **fields: object) -> str:
    return json.dumps({"time": 1.0, "stage": stage, "event": event, **fields}) + "\n"


def test_a_line_is_read_once_and_only_when_it_is_complete(tmp_path: Path):
    path = tmp_path / "progress.jsonl"
    follower = EventFollower(path)
    assert follower.read() == []
    text = line("qat", "started")
    path.write_text(text + text[:10])
    assert [event.stage for event in follower.read()] == ["qat"]
    assert follower.read() == []
    path.write_text(text + text)
    assert len(follower.read()) == 1


def test_a_line_that_a_killed_writer_left_in_pieces_is_passed_over(tmp_path: Path):
    path = tmp_path / "progress.jsonl"
    path.write_text('{"time": 1.0, "sta' + line("qat", "started") + line("ptq", "started"))
    assert [event.stage for event in EventFollower(path).read()] == ["ptq"]


def test_an_epoch_carries_its_count_and_its_metrics(tmp_path: Path):
    path = tmp_path / "progress.jsonl"
    path.write_text(line("qat", "epoch", epoch=2, epochs=3, metrics={"loss": 0.5}))
    assert EventFollower(path).read() == [Event("qat", "epoch", 1.0, {"loss": 0.5}, epoch=2, epochs=3)]


def test_a_stage_that_is_retried_starts_anew():
    state = RunState([WatchedStage("qat", "baseline")])
    state.apply(Event("qat", "started", 10.0))
    state.apply(Event("qat", "failed", 12.0, message="no"))
    assert state.of_phase(Phase.FAILED)[0].message == "no"
    state.apply(Event("qat", "started", 20.0))
    assert state["qat"].phase == Phase.RUNNING
    assert state["qat"].message == ""
    assert state["qat"].parent == "baseline"
    state.apply(Event("qat", "finished", 25.0))
    assert state["qat"].seconds(now=99.0) == 5.0


def test_what_is_open_at_the_end_is_settled():
    for stopped, phase in ((False, Phase.FAILED), (True, Phase.STOPPED)):
        state = RunState([WatchedStage("qat"), WatchedStage("ptq")])
        state.apply(Event("qat", "started", 10.0))
        state.close(15.0, stopped=stopped)
        assert state["qat"].phase == phase
        assert state["qat"].seconds(now=99.0) == 5.0
        assert state["ptq"].phase == Phase.SKIPPED


def test_an_optional_stage_is_shown_once_it_begins_and_an_unexpected_one_too():
    state = RunState([WatchedStage("assess", optional=True), WatchedStage("gate")])
    assert [stage.name for stage in state] == ["gate"]
    state.apply(Event("assess", "started", 1.0))
    state.apply(Event("surprise", "started", 1.0))
    assert [stage.name for stage in state] == ["assess", "gate", "surprise"]
