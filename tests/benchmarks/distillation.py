"""What learning from the parent is worth, on every stage that trains.

`python tests/benchmarks/distillation.py --example digits --seeds 0 1 2 [--leaves L ...] [--train-share S]
[--choices 0:1 0.5:4 ...] [--fixed epochs=3 ...]` grows the training part of the tree (all seven stages, or those of
some leaves) once a seed and choice of weight and temperature, the same on every stage, and measures each model on the
validation split, where the choice is made, and on the test split. What was measured is added to
`results/distillation.json`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planted import add_experiment, metrics_of, plant, the_only

from collabopt.components.engine.records import validation_name
from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.training.classification import TASK
from collabopt.pipelines.tree import ROOT, TREE

RESULTS = Path(__file__).resolve().parent / "results" / "distillation.json"
LEAVES = ("qat", "pqat", "pcqat", "cqat")
CHOICES = ("0:1", "0.5:1", "0.5:4", "0.9:1", "0.9:4")
Choice = tuple[float, float]


def grow(given: argparse.Namespace, seed: int, fixed: dict[str, Any], directory: Path) -> Iterator[dict[str, Any]]:
    """Runs the stages of one seed; one row for every stage and choice."""
    planted = plant(f"example://{given.example}", seed, directory, given.train_share)
    for weight, temperature in given.choices:
        made = {ROOT: ROOT}
        for stage in TREE.restricted_to(given.leaves):
            made[stage.name] = f"{stage.name}-{weight:g}-{temperature:g}"
            started = time.monotonic()
            output = planted.grow(
                stage,
                made[stage.parent],
                made[stage.name],
                distillation_weight=weight,
                distillation_temperature=temperature,
                **fixed,
            )
            metrics = metrics_of(output)
            yield {
                "stage": stage.name,
                "weight": weight,
                "temperature": temperature,
                "seed": seed,
                "seconds": round(time.monotonic() - started, 2),
                "validation": metrics[validation_name(TASK.metric.name)],
                "test": metrics[TASK.metric.name],
            }


def table(rows: list[dict[str, Any]], choices: list[Choice]) -> str:
    """Mean accuracy of every stage and choice over the seeds, validation / test, as Markdown."""
    lines = ["| stage | " + " | ".join(f"w {w:g}, T {t:g}" if w else "none" for w, t in choices) + " |"]
    lines.append("|---|" + "--:|" * len(choices))
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    for stage in [*stages, "mean"]:
        cells = []
        for choice in choices:
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
    parser.add_argument(
        "--choices", type=_choice, nargs="+", default=[_choice(each) for each in CHOICES], metavar="WEIGHT:TEMPERATURE"
    )
    parser.add_argument("--fixed", action="append", default=[], metavar="NAME=VALUE", help="of every stage")
    parser.add_argument("--json", type=Path, default=RESULTS)
    given = parser.parse_args()
    fixed = the_only(given.fixed)
    conditions = {"example": given.example, "train_share": given.train_share, "fixed": fixed}
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, stage_host():
        for seed in given.seeds:
            of_seed = []
            for row in grow(given, seed, fixed, Path(directory) / str(seed)):
                print(row, flush=True)
                of_seed.append(row)
            add_experiment(given.json, conditions, of_seed)
            rows += of_seed
    print(table(rows, given.choices))


def _choice(text: str) -> Choice:
    weight, _, temperature = text.partition(":")
    return float(weight), float(temperature)


if __name__ == "__main__":
    main()
