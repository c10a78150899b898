import io
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.records import read_leaf_report
from collabopt.pipelines.local_run import LocalRun, run_locally
from collabopt.pipelines.output_directory import LEAF_FILES, open_output
from collabopt.pipelines.run_state import WatchedStage

pytestmark = pytest.mark.usefixtures("toys")

RESULT = {"decision.json", *(f"leaves/ptq/{name}" for name in LEAF_FILES)}


def run(toy: str, output: Path, on_failure: Callable[[str], None] | None = None, **arguments: object) -> str:
    console = Console(file=io.StringIO(), width=120, highlight=False)
    stages = (WatchedStage("pruned"), WatchedStage("ptq"), WatchedStage("qat"), WatchedStage("gate"))
    planned = LocalRun(f"toy_pipelines:{toy}", toy, arguments, output, "sqlite:////nowhere/mlflow.db", stages)
    run_locally(planned, console, on_failure=on_failure)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def files(directory: Path) -> set[str]:
    return {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


def contents(directory: Path) -> dict[str, bytes]:
    return {name: (directory / name).read_bytes() for name in files(directory) if not name.startswith("logs")}


def test_a_run_leaves_leaves_decision_and_logs_and_nothing_else(tmp_path: Path):
    output = tmp_path / "an output"
    shown = run("success", output)
    logs = {f"logs/{name}.log" for name in ("pruned", "ptq", "gate", "pipeline")}
    assert files(output) == RESULT | logs
    assert set(os.listdir(output)) == {"leaves", "decision.json", "logs"}
    assert read_leaf_report(output / "leaves/ptq").stage == "ptq"
    assert Decision.model_validate_json((output / "decision.json").read_bytes()).winner == "ptq"
    assert (output / "logs/pruned.log").read_text().startswith("this is pruned")
    assert "winner: ptq" in shown
    assert "0.9200" in shown and "+0.0200" in shown and "20,480" in shown and "10,240" in shown
    assert "within every limit" in shown


def test_no_qualified_leaf_is_an_outcome(tmp_path: Path):
    shown = run("success", tmp_path / "out", model_name="")
    assert "no leaf qualifies" in shown
    assert "refused" in shown and "accepted is at most 0.01" in shown
    assert files(tmp_path / "out") >= RESULT


def test_a_run_that_its_policy_lets_fail_leaves_what_it_has_made(tmp_path: Path):
    """Hours of training are not thrown away because no leaf qualifies."""
    output = tmp_path / "out"
    make_earlier_result(output)
    failed: list[str] = []
    with pytest.raises(CollaboptError) as raised:
        run("success", output, failed.append, model_name="", when_none_qualifies="fail")
    assert raised.value.what.startswith("none of 1 leaves qualifies")
    assert raised.value.where == str(output)
    assert "collabopt gate" in raised.value.todo
    assert {name for name in files(output) if not name.startswith("logs")} == RESULT
    assert (output / "leaves/ptq/model.tflite").read_text() == "first"
    assert Decision.model_validate_json((output / "decision.json").read_bytes()).winner is None
    assert len(failed) == 1


def test_stages_get_what_the_contract_promises(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MLFLOW_RUN_ID", "the caller's own")
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    run("environment", tmp_path / "out")
    seen = dict(line.split("=", 1) for line in (tmp_path / "out/logs/pruned.log").read_text().splitlines())
    assert len(seen["COLLABOPT_PIPELINE_RUN_ID"]) == 36
    assert seen["COLLABOPT_PIPELINE_NAME"] == f"environment-{seen['COLLABOPT_PIPELINE_RUN_ID'][:8]}"
    assert seen["MLFLOW_TRACKING_URI"] == "sqlite:////nowhere/mlflow.db"
    assert seen["COLLABOPT_LOG_DIR"] == str(tmp_path / "out/logs")
    assert seen["TMPDIR"].startswith(str(tmp_path / "out/.work-"))
    assert "MLFLOW_RUN_ID" not in seen
    assert "PYTHONDONTWRITEBYTECODE" not in seen


def test_a_failed_run_says_why_and_leaves_the_earlier_result_intact(tmp_path: Path):
    output = tmp_path / "out"
    earlier = make_earlier_result(output)
    (output / "logs").mkdir()
    (output / "logs/ptq.log").write_text("earlier")
    failed: list[str] = []
    with pytest.raises(CollaboptError) as raised:
        run("failing", output, on_failure=failed.append)
    message = str(raised.value)
    assert message.startswith("stage 'qat' failed: the learning rate is too high")
    assert "layer conv_7" in message and "halve it" in message
    assert str(output / "logs/qat.log") in message
    assert contents(output) == earlier
    assert files(output) - set(earlier) == {"logs/pruned.log", "logs/qat.log", "logs/pipeline.log"}
    assert "CollaboptError" in (output / "logs/pipeline.log").read_text()
    assert (output / "logs/pruned.log").read_text().strip() == f"this is pruned, run {failed[0]}"


def test_trouble_with_marking_the_failure_does_not_hide_it(tmp_path: Path):
    def on_failure(run_id: str) -> None:
        raise CollaboptError("MLflow is away")

    with pytest.raises(CollaboptError, match="learning rate is too high"):
        run("failing", tmp_path / "out", on_failure=on_failure)


@pytest.mark.parametrize(
    ("how", "what", "tail"),
    [
        ("kill", "stage 'qat' failed: its process ended without a message", "about to fail"),
        ("import", "no stage says why", "No module named 'no_such_module_at_all'"),
    ],
)
def test_a_process_that_dies_silently_is_told_by_the_end_of_its_log(tmp_path: Path, how: str, what: str, tail: str):
    with pytest.raises(CollaboptError) as raised:
        run("failing", tmp_path / "out", how=how)
    assert what in str(raised.value)
    assert tail in str(raised.value)
    assert "\x1b" not in str(raised.value)


def test_a_pipeline_without_a_decision_has_failed(tmp_path: Path):
    failed: list[str] = []
    with pytest.raises(CollaboptError, match="without a decision"):
        run("undecided", tmp_path / "out", on_failure=failed.append)
    assert len(failed) == 1


def test_a_directory_in_use_is_refused(tmp_path: Path):
    with open_output(tmp_path / "out"), pytest.raises(CollaboptError, match="another run"):
        run("success", tmp_path / "out")


@pytest.mark.parametrize(
    ("toy", "signals"),
    [("sleeping", [signal.SIGINT]), ("sleeping", [signal.SIGTERM]), ("stubborn", [signal.SIGINT, signal.SIGINT])],
    ids=["SIGINT", "SIGTERM", "SIGINT-twice-to-a-stubborn-stage"],
)
def test_an_interrupted_run_leaves_no_process_and_no_work(
    tmp_path: Path,
    start_command: Callable[..., subprocess.Popen[str]],
    toy: str,
    signals: list[signal.Signals],
):
    earlier = make_earlier_result(tmp_path / "out")
    process = start_command(toy)
    pids = pids_of_the_stage(tmp_path)
    began = time.monotonic()
    for number in signals:
        process.send_signal(number)
        time.sleep(0.5)
    _, errors = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "Traceback" not in errors
    assert "interrupted" in errors
    assert time.monotonic() - began < 5, "it has waited for the whole grace"
    wait_for(lambda: not any(is_alive(pid) for pid in pids), seconds=1)
    assert contents(tmp_path / "out") == earlier
    assert set(os.listdir(tmp_path / "out")) == {"leaves", "decision.json", "logs"}


def test_a_killed_run_takes_its_stages_along_and_is_cleared_away_by_the_next(
    tmp_path: Path, start_command: Callable[..., subprocess.Popen[str]]
):
    process = start_command("sleeping")
    pids = pids_of_the_stage(tmp_path)
    process.kill()
    wait_for(lambda: not any(is_alive(pid) for pid in pids), seconds=5)
    assert list((tmp_path / "out").glob(".work-*"))
    with open_output(tmp_path / "out"):
        pass
    assert os.listdir(tmp_path / "out") == ["logs"]


def make_earlier_result(output: Path) -> dict[str, bytes]:
    for name in RESULT:
        (output / name).parent.mkdir(parents=True, exist_ok=True)
        (output / name).write_text("earlier")
    return contents(output)


def pids_of_the_stage(directory: Path) -> list[int]:
    path = directory / "pids"
    wait_for(lambda: path.exists() and len(path.read_text().split()) == 3)
    return [int(pid) for pid in path.read_text().split()]


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def wait_for(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
