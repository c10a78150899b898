"""A pipeline of somebody's own, run as they would: kfp.local, no command of ours."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

PIPELINES = Path(__file__).parents[1] / "pipelines"

PROGRAM = """
from kfp import local
from own_pipeline import own_pipeline
local.init(local.SubprocessRunner(use_venv=False), pipeline_root="root")
own_pipeline()
"""


def test_own_pipeline_prunes_quantizes_and_decides(tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    environment = {
        **kept,
        "PYTHONPATH": str(PIPELINES),
        "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path / 'mlflow.db'}",
        "COLLABOPT_CACHE": str(tmp_path / "cache"),
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-5000:]
    (decision,) = tmp_path.glob("root/**/decision.json")
    decided = json.loads(decision.read_text())
    assert decided["winner"] == "pqat"
    (verdict,) = decided["verdicts"]
    assert verdict["figures"]["sparsity"] == pytest.approx(0.6, abs=0.01)  # what their own step chose
