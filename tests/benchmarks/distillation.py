"""What learning from the parent is worth, on every stage that trains.

`python tests/benchmarks/distillation.py --example digits --seeds 0 1 2 [--leaves L ...] [--train-share S] [--json F]`
grows the training part of the tree (all seven stages, or those of some leaves) once a seed and choice of weight and
temperature, the same on every stage, and measures each model on the validation split, where the choice is made, and on
the test split.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
import time
from datetime import datetime
from pathlib import Path
from typing import Any

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.datasets.store import StoredDataset
from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.models.store import load_stage_model
from collabopt.components.engine.records import TFLITE_FILE
from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.stages import import_model_stage, load_dataset_stage, run_stage
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.components.engine.versions import versions
from collabopt.pipelines.arguments import EXAMPLE_PARAMETERS
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, TREE

LEAVES = ("qat", "pqat", "pcqat", "cqat")
CHOICES = ((0.0, 1.0), (0.5, 1.0), (0.5, 4.0), (0.9, 1.0), (0.9, 4.0))


def grow(source: str, seed: int, leaves: list[str], train_share: float, directory: Path) -> list[dict[str, Any]]:
    """Runs the stages of one seed; one row for every stage and choice."""
    parameters = dataclasses.asdict(Parameters(**{**EXAMPLE_PARAMETERS.get(source, {}), "seed": seed}))
    dataset = str(directory / "dataset")
    common: dict[str, Any] = {"task": DEFAULT_TASK, "overrides": {}}
    load_dataset_stage(source=source, output=dataset, settings={"seed": seed, "train_share": train_share}, **common)
    baseline = directory / ROOT
    import_model_stage(source=source, dataset=dataset, output=str(baseline), settings={"seed": seed}, **common)
    rows = []
    for weight, temperature in CHOICES:
        made = {ROOT: baseline}
        for stage in TREE.restricted_to(leaves):
            made[stage.name] = directory / f"{stage.name}-{weight:g}-{temperature:g}"
            started = time.monotonic()
            run_stage(
                stage.technique.name,
                stage=stage.name,
                parent=str(made[stage.parent]),
                dataset=dataset,
                output=str(made[stage.name]),
                settings=inputs_of(stage.technique.name, parameters)
                | {"distillation_weight": weight, "distillation_temperature": temperature},
                **common,
            )
            rows.append(
                {
                    "stage": stage.name,
                    "weight": weight,
                    "temperature": temperature,
                    "seed": seed,
                    "seconds": round(time.monotonic() - started, 2),
                    **accuracies(made[stage.name], StoredDataset(dataset)),
                }
            )
            print(rows[-1], flush=True)
    return rows


def accuracies(directory: Path, data: StoredDataset) -> dict[str, float]:
    """Accuracy of a stage's outcome, the deployed one where there is one, by split."""
    file = directory / TFLITE_FILE
    model = None if file.exists() else load_stage_model(directory, allow_lambda=False)
    found = {}
    for split in ("validation", "test"):
        inputs, labels = data.inputs(split, None), data.labels(split, None)
        outputs = predict(file.read_bytes(), inputs) if model is None else model.predict(inputs, verbose=0)
        found[split] = TASK.measure(outputs, labels)["accuracy"]
    return found


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
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{directory}/mlflow.db"
        for seed in given.seeds:
            rows += grow(source, seed, list(given.leaves), given.train_share, Path(directory) / str(seed))
            if given.json:
                figures = {"measured": datetime.now().date().isoformat(), "cores": os.cpu_count()}
                figures |= {"versions": versions(), "example": given.example, "train_share": given.train_share}
                given.json.write_text(json.dumps(figures | {"rows": rows}, indent=2) + "\n", encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
