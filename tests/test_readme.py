"""The README shows what its commands print."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def evidence(tmp_path_factory):
    """What the command prints, in paragraphs, and the file it draws; on a machine other than the measurements'."""
    directory = tmp_path_factory.mktemp("evidence")
    results = json.loads((ROOT / "tests/benchmarks/results/evidence.json").read_text(encoding="utf-8"))
    results["conditions"] |= {"cores": 640, "versions": {"tensorflow": "1.0"}}
    (directory / "evidence.json").write_text(json.dumps(results), encoding="utf-8")
    command = [sys.executable, ROOT / "tests/benchmarks/evidence.py", "--no-run"]
    command += ["--json", directory / "evidence.json", "--plot", directory / "evidence.svg"]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip().split("\n\n"), directory / "evidence.svg"


def test_tables_of_evidence_are_those_that_the_command_prints(evidence):
    (summary, all_leaves, baselines, cost), _ = evidence
    assert summary in README
    assert all_leaves in README
    stages, searches = (int(minutes) for minutes in re.findall(r"(\d+) minutes", cost))
    said = " ".join(README.split())
    assert f"took {stages} minutes of processor time, the three searches {searches} minutes on one core" in said
    assert baselines.removeprefix("baselines: ") in said


def test_the_plot_of_evidence_is_the_one_that_the_command_draws(evidence):
    _, plot = evidence
    assert plot.read_bytes() == (ROOT / ".github/images/evidence.svg").read_bytes()
