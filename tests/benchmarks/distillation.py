"""What learning from the parent is worth, on every stage that trains.

`python tests/benchmarks/distillation.py --example digits --seeds 0 1 2 [--leaves L ...] [--train-share S] [--json F]`
grows the training part of the tree (all seven stages, or those of some leaves) once a seed and choice of weight and
temperature, the same on every stage, and measures each model on the validation split, where the choice is made, and on
the test split.
"""

import argparse
import json
import os
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from planted import metrics_of, plant

from collabopt.components.engine.records import validation_name
from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.versions import versions
from collabopt.pipelines.tree import ROOT, TREE

LEAVES = ("qat", "pqat", "pcqat", "cqat")
CHOICES = ((0.0, 1.0), (0.5, 1.0), (0.5, 4.0), (0.9, 1.0), (0.9, 4.0))


def grow(source: str, seed: int, leaves: list[str], train_share: float, directory: Path) -> list[dict[str, Any]]:
    """Runs the stages of one seed; one row for every stage and choice."""
    planted = plant(source, seed, directory, train_share)
    rows = []
    for weight, temperature in CHOICES:
        made = {ROOT: ROOT}
        for stage in TREE.restricted_to(leaves):
            made[stage.name] = f"{stage.name}-{weight:g}-{temperature:g}"
            started = time.monotonic()
            output = planted.grow(
                stage,
                made[stage.parent],
                made[stage.name],
                distillation_weight=weight,
                distillation_temperature=temperature,
            )
            metrics = metrics_of(output)
            rows.append(
                {
                    "stage": stage.name,
                    "weight": weight,
                    "temperature": temperature,
                    "seed": seed,
                    "seconds": round(time.monotonic() - started, 2),
                    "validation": metrics[validation_name(TASK.metric.name)],
                    "test": metrics[TASK.metric.name],
                }
            )
            print(rows[-1], flush=True)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Mean accuracy of every stage and choice over the seeds, validation / test, as Markdown."""
    lines = ["| stage | " + " | ".join(f"w {w:g}, T {t:g}" if w else "none" for w, t in CHOICES) + " |"]
    lines.append("|---|" + "--:|" * len(CHOICES))
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for stage in [*stages, "mean"]:
        cells = []
        for choice in CHOICES:
            chosen = [
                row for row in rows if stage in (row["stage"], "mean") and (row["weight"], row["temperature"]) == choice
            ]
            cells.append(
                " / ".join(f"{statistics.mean(row[split] for row in chosen):.4f}" for split in ("validation", "test"))
            )
        lines.append(f"| {stage} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Runs the benchmark and prints its table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--example", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--leaves", choices=LEAVES, nargs="+", default=LEAVES)
    parser.add_argument("--train-share", type=float, default=1.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    source = f"example://{given.example}"
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, stage_host():
        for seed in given.seeds:
            rows += grow(source, seed, list(given.leaves), given.train_share, Path(directory) / str(seed))
            if given.json:
                figures = {"measured": datetime.now().date().isoformat(), "cores": os.cpu_count()}
                figures |= {"versions": versions(), "example": given.example, "train_share": given.train_share}
                given.json.write_text(json.dumps(figures | {"rows": rows}, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
