"""The search of the evidence: the configuration that keeps a network most accurate at a fraction of its size.

`collabopt search` itself, over the branch whose leaves can be that small; it knows one seed, and its winner's
configuration is then trained with every seed.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

PIPELINE = "pruning"
PARAMETERS = {"epochs": 6, "qat_epochs": 3}
# What did best for `pruned` in `results/recipes.json` where nine weights in ten go; how often masks change, 20 steps or
# 100, made no difference.
SETTINGS = {
    "pruned": {"epochs": 12, "learning_rate": 3e-3, "schedule": "polynomial", "distillation_weight": 0.9},
}
SPACE = "sparsity: [0.88, 0.9, 0.91, 0.92, 0.94, 0.96]\nclusters: [4, 8, 16]\n"
TRIALS = 5
CONDITIONS = {"pipeline": PIPELINE, "parameters": PARAMETERS, "settings": SETTINGS, "space": SPACE, "trials": TRIALS}


def policy(compression: float) -> str:
    """The most accurate of the leaves that are so many times smaller, packed, than the float file."""
    return f"""
goals:
  - figure: packed_bytes
    max_ratio: {1 / compression:.4f}
    against: baseline
priority:
  - metric
"""


def search(model: str, data: str, compression: float, arguments: dict[str, Any], settings: dict[str, Any]) -> Any:
    """Searches in the current directory.

    Args:
        model: The baseline's file.
        data: Source of the data.
        compression: See `policy`.
        arguments: Pipeline parameter -> value.
        settings: `stage.hyperparameter` -> value.

    Returns:
        `parameters`, those of the winner: pipeline parameter -> value; and what the search took.
    """
    Path("space.yaml").write_text(SPACE, encoding="utf-8")
    Path("search-policy.yaml").write_text(policy(compression), encoding="utf-8")
    fixed = {**arguments, **PARAMETERS}
    command = [str(Path(sys.executable).with_name("collabopt")), "search", "--json", "--model", model, "--data", data]
    command += ["--pipeline", PIPELINE, "--space", "space.yaml", "--policy", "search-policy.yaml"]
    command += ["--trials", str(TRIALS), "--output", "search", "--releases", "search-releases"]
    command += [f"--param={name}={value}" for name, value in fixed.items()]
    own = {f"{stage}.{name}": value for stage, given in SETTINGS.items() for name, value in given.items()}
    command += [f"--set={name}={value}" for name, value in {**settings, **own}.items()]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    print(done.stderr)
    if done.returncode:
        raise ValueError("the search has failed: " + " ".join(done.stderr.split())[-200:])
    summary = json.loads(done.stdout)
    winner = next((leaf for leaf in summary["front"] if leaf["leaf"] == summary["winner"]), None)
    if winner is None:
        raise ValueError(f"the search has found nothing: {summary['outcome']}")
    taken = ("trainings", "trainings_without_sharing", "used", "ended_by", "winner")
    return {"parameters": {**fixed, **winner["configuration"]}, **{name: summary[name] for name in taken}}
