"""An example's data and baseline on disk, to grow stages on by hand."""

import itertools
import json
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.records import REPORT_FILE, StageRecord, read_leaf_report, read_stage_record
from collabopt.components.engine.stages import import_model_stage, load_dataset_stage, run_stage
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.components.engine.versions import versions
from collabopt.components.engine.whole_file import written_whole
from collabopt.pipelines.arguments import EXAMPLE_PARAMETERS, parse_value
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, Stage

_COMMON: dict[str, Any] = {"task": DEFAULT_TASK, "overrides": {}}


@dataclass(frozen=True)
class Planted:
    """What stages are grown on.

    Attributes:
        directory: Where everything is written, the MLflow store too.
        dataset: `Dataset` directory.
        parameters: Pipeline parameter -> value, the example's defaults.
    """

    directory: Path
    dataset: Path
    parameters: dict[str, Any]

    def grow(self, stage: Stage, parent: str, name: str, **settings: Any) -> Path:
        """Runs a stage on the output of that name, with these settings before the defaults; where its output is."""
        output = self.directory / name
        run_stage(
            stage.technique.name,
            stage=stage.name,
            parent=str(self.directory / parent),
            dataset=str(self.dataset),
            output=str(output),
            settings={**inputs_of(stage.technique.name, self.parameters), **settings},
            **_COMMON,
        )
        return output


def plant(source: str, seed: int, directory: Path, train_share: float = 1.0) -> Planted:
    """Loads an example's data and imports its baseline, under the name of the tree's root.

    Args:
        source: URI of the example.
        seed: Seeds splits, baseline and fine-tuning.
        directory: Where to write; made if missing.
        train_share: Share of the train split that is used.
    """
    directory.mkdir(parents=True, exist_ok=True)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{directory}/mlflow.db"
    dataset = directory / "dataset"
    load_dataset_stage(
        source=source, output=str(dataset), settings={"seed": seed, "train_share": train_share}, **_COMMON
    )
    import_model_stage(
        source=source, dataset=str(dataset), output=str(directory / ROOT), settings={"seed": seed}, **_COMMON
    )
    return Planted(directory, dataset, vars(Parameters(**{**EXAMPLE_PARAMETERS.get(source, {}), "seed": seed})))


def record_of(output: Path) -> StageRecord:
    """The record of a stage's outcome."""
    return (read_leaf_report if (output / REPORT_FILE).is_file() else read_stage_record)(output)


def metrics_of(output: Path) -> dict[str, float]:
    """Metrics of a stage's outcome: of the `.tflite` where there is one, else of the fp32 model."""
    return dict(record_of(output).metrics)


def combinations(texts: list[str]) -> list[dict[str, Any]]:
    """Every combination of `name=value,value` axes."""
    axes = {}
    for text in texts:
        name, _, values = text.partition("=")
        axes[name] = [parse_value(value, text) for value in values.split(",")]
    return [dict(zip(axes, values, strict=True)) for values in itertools.product(*axes.values())]


def add_experiment(file: Path, conditions: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Adds what was measured to a file of results, a list, with versions and machine.

    Args:
        file: Where to; made if missing.
        conditions: What was the same for all rows.
        rows: What was measured.
    """
    experiments = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    made = {"measured": f"{datetime.now():%Y-%m-%d}", "cores": os.cpu_count(), "versions": versions()}
    experiments.append({**conditions, **made, "rows": rows})
    with written_whole(file) as written:
        written.write_text(json.dumps(experiments, indent=1) + "\n", encoding="utf-8")


def the_only(texts: list[str]) -> dict[str, Any]:
    """The settings of `name=value` options that must have one value each."""
    found = combinations(texts)
    if len(found) > 1:
        raise SystemExit(f"{' '.join(texts)}: give one value each")
    return found[0]
