"""What follows a run: the gate again with other policies, what has been released, and the way back."""

import json
import shutil
from pathlib import Path

import pytest

# Three clusters cost accuracy, and make weights that the NPU reads fast.
QUICK = ["--param", "epochs=1", "--param", "qat_epochs=1", "--param", "clusters=3"]
SMALLEST_DOWNLOAD = "goals: []\npriority: [packed_bytes]"
# Files of the same layers are of the same size, whatever their weights; so the accuracy decides.
SMALLEST_FILE = "goals: []\npriority: [tflite_bytes, metric]"
FAST_ON_THE_NPU = "goals: [{{figure: npu_latency_ms, threshold: {limit}}}]\npriority: [npu_latency_ms, metric]"


@pytest.fixture(scope="module")
def finished(collabopt, tmp_path_factory):
    policy = tmp_path_factory.mktemp("policy") / "policy.yaml"
    policy.write_text(SMALLEST_DOWNLOAD)
    run = collabopt("run", "--example", "digits", "--pipeline", "pruning", "--policy", policy, *QUICK)
    assert run.exit_code == 0, run.error
    return run


@pytest.fixture
def again(collabopt, finished, tmp_path):
    """Runs the command where a copy of the finished run lies, and gives what it ended with."""
    directory = tmp_path / "run"
    shutil.copytree(finished.directory, directory)

    def run(*arguments, policy=""):
        if policy:
            (directory / "policy.yaml").write_text(policy)
            arguments = (*arguments, "--policy", "policy.yaml")
        return collabopt(*arguments, directory=directory)

    return run


def files(directory: Path):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def champion(run):
    return json.loads((run.directory / "collabopt-releases" / "collabopt" / "champion.json").read_text())


def decision(run):
    return json.loads((run.result / "decision.json").read_text())


def test_the_report_and_the_model_card_are_there_and_released(finished):
    page = (finished.result / "report.html").read_text()
    assert decision(finished)["outcome"].split(":")[0].replace("'", "&#39;") in page
    manifest = json.loads((finished.directory / "collabopt-releases" / champion(finished)["manifest"]).read_text())
    wanted = {"model.tflite", "model.tflite.gz", "report.json", "model_data.cc", "model_data.h", "report.html"}
    assert set(manifest["files"]) == wanted | {"model_card.md", "model_card.json"}
    assert str(finished.result / "report.html").endswith("report.html")


def test_a_policy_that_knows_the_npu_ships_another_leaf_than_one_on_raw_bytes(again):
    by_size = again("gate", policy=SMALLEST_FILE)
    assert by_size.exit_code == 0, by_size.error
    latency = {verdict["leaf"]: verdict["figures"]["npu_latency_ms"] for verdict in decision(by_size)["verdicts"]}
    smallest, its_digest = decision(by_size)["winner"], decision(by_size)["winner_sha256"]
    limit = min(latency.values())
    assert latency[smallest] > limit
    by_latency = again("gate", policy=FAST_ON_THE_NPU.format(limit=limit))
    assert by_latency.exit_code == 0, by_latency.error
    assert latency[decision(by_latency)["winner"]] == limit
    assert champion(by_latency)["previous"] == its_digest


def test_the_gate_again_changes_nothing(again, finished):
    before = champion(finished)
    run = again("gate", policy=SMALLEST_DOWNLOAD)
    assert run.exit_code == 0, run.error
    assert champion(run) == before
    assert decision(run) == decision(finished)
    # As the run itself has shown it, without the time that stages took.
    header = next(line for line in run.output.splitlines() if line.split()[:2] == ["leaf", "accuracy"])
    assert header.split()[-2:] == ["npu", "ms"]
    assert any(line.split()[-3:] == ["npu", "ms", "time"] for line in finished.output.splitlines())


def test_a_dry_run_says_what_would_ship_and_writes_nothing(again, finished):
    before = files(finished.directory)
    run = again("gate", "--dry-run", policy="goals: [{figure: metric, max_drop: 0.9}]\npriority: [npu_flash_bytes]")
    assert run.exit_code == 0, run.error
    assert "winner: " in run.output and "dry run: nothing was promoted or written" in run.output
    after = files(run.directory)
    assert {path: content for path, content in after.items() if path.name != "policy.yaml"} == before


def test_where_none_qualifies_the_policy_may_want_an_error(again, finished):
    before = champion(finished)
    run = again("gate", policy="goals: [{figure: packed_bytes, threshold: 1}]\nwhen_none_qualifies: fail")
    assert run.exit_code == 1
    assert "no leaf qualifies" in run.output and "accepted" in run.output
    assert "error: none of 4 leaves qualifies" in run.error
    assert "Traceback" not in run.error
    assert decision(run)["winner"] is None and "Nothing ships" in (run.result / "report.html").read_text()
    assert champion(run) == before


def test_the_way_back(again):
    first = champion(again("gate", policy=SMALLEST_DOWNLOAD))["champion"]
    second = champion(again("gate", policy=SMALLEST_FILE))
    assert second["previous"] == first != second["champion"]
    listed = again("releases", "collabopt").output
    assert second["champion"][:12] in listed and "champion" in listed and "previous" in listed
    back = again("rollback", "collabopt")
    assert back.exit_code == 0, back.error
    assert champion(back)["champion"] == first
    refused = again("gate", policy=SMALLEST_FILE)
    assert refused.exit_code == 0, refused.error
    assert champion(refused)["champion"] != second["champion"]
    verdicts = {verdict["sha256"]: verdict for verdict in decision(refused)["verdicts"]}
    assert not verdicts[second["champion"]]["qualified"]
    assert "rolled back" in verdicts[second["champion"]]["reason"]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("gate", "--leaves", "nowhere"), "these are not the leaves of a finished run"),
        (("gate", "--policy", "nowhere.yaml"), "there is no such policy file"),
        (("gate", "--releases", "s3://bucket"), "releases cannot be kept in s3://"),
        (("releases", "unknown"), "unknown"),
        (("rollback", "unknown"), "unknown"),
    ],
)
def test_what_cannot_be_done_is_said_and_changes_nothing(again, finished, arguments, expected):
    before = files(finished.directory)
    run = again(*arguments)
    assert run.exit_code == 1
    assert run.error.startswith("error: ") and expected in run.error
    assert "Traceback" not in run.error
    assert files(run.directory) == before
