"""Which hyperparameters of a stage train best: what the defaults were chosen by.

`python tests/benchmarks/recipes.py STAGE --try learning_rate=0.0001,0.001 [--try epochs=1,3] [--fixed optimizer=sgd]
[--frozen-normalization] [--example digits] [--train-share 1] [--seeds 0 1 2]` grows the way to a stage once a seed with
the defaults, then the stage with every combination, and prints the metric on the validation split: of the fp32 model,
or of a leaf's `.tflite`. The test split is never looked at. What was measured is added to `results/recipes.json`.
"""

import argparse
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from planted import add_experiment, combinations, plant, record_of, the_only

from collabopt.components.engine.records import StageRecord, validation_name
from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.training.classification import TASK
from collabopt.pipelines.tree import ROOT, TREE, Stage

RESULTS = Path(__file__).resolve().parent / "results" / "recipes.json"


def measure(given: argparse.Namespace, stage: Stage, tries: list[dict[str, Any]], seed: int) -> Iterator[StageRecord]:
    """Grows the way to a stage, then the stage with every set of hyperparameters; its record."""
    with tempfile.TemporaryDirectory(prefix="recipes-") as directory:
        planted = plant(f"example://{given.example}", seed, Path(directory), given.train_share)
        if given.frozen_normalization:
            freeze_normalization(planted.directory / ROOT)
        *above, _ = TREE.path(stage.name)
        for each in above:
            planted.grow(each, each.parent, each.name)
        for number, settings in enumerate(tries):
            output = planted.grow(stage, stage.parent, f"{stage.name}-{number}", **settings)
            yield record_of(output)


def freeze_normalization(baseline: Path) -> None:
    """Freezes statistics, scale and offset of every BatchNormalization of a baseline, for all stages below it."""
    from collabopt.components.engine.models.store import load_stage_model, save_model

    model = load_stage_model(baseline)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.trainable = False
    save_model(model, baseline)


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and deviation of every combination over the seeds, the best first."""
    metrics: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        metrics[", ".join(f"{name}={value}" for name, value in row["settings"].items())].append(row["validation"])
    best_first = sorted(metrics.items(), key=lambda entry: -statistics.mean(entry[1]))
    lines = []
    for name, values in best_first:
        deviation = f" ± {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        lines.append(f"{statistics.mean(values):.4f}{deviation}  {name}")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints, and adds to the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=[stage.name for stage in TREE])
    parser.add_argument("--try", dest="tries", action="append", required=True, metavar="NAME=VALUE,...")
    parser.add_argument("--fixed", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--frozen-normalization", action="store_true", help="train no BatchNormalization")
    parser.add_argument("--example", default="digits")
    parser.add_argument("--train-share", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    fixed = the_only(arguments.fixed)
    tries = combinations(arguments.tries)
    stage = next(stage for stage in TREE if stage.name == arguments.stage)
    rows: list[dict[str, Any]] = []
    ways: list[dict[str, Any]] = []
    with stage_host():
        for seed in arguments.seeds:
            given = [{**settings, **fixed} for settings in tries]
            for settings, record in zip(given, measure(arguments, stage, given, seed), strict=True):
                validation = record.metrics[validation_name(TASK.metric.name)]
                rows.append({"seed": seed, "settings": settings, "validation": validation})
                ways.append({step.stage: step.settings for step in record.lineage})
    print(table(rows))
    conditions = {"stage": stage.name, "example": arguments.example, "train_share": arguments.train_share}
    conditions |= {"frozen_normalization": arguments.frozen_normalization, "settings_of_first_row": ways[0]}
    add_experiment(arguments.json, conditions, rows)


if __name__ == "__main__":
    main()
