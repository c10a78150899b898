"""What one palette per tensor costs and gains against one scale per output channel, on the leaves below clustering.

`python tests/benchmarks/palette.py --example digits --seeds 0 1 2 [--json FILE]` grows the clustered part of the tree
once a seed, and every leaf twice: with `palette` set to `tensor`, the default, and to `channel`.
"""

import argparse
import dataclasses
import json
import os
import statistics
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from collabopt.components.engine.bindings import inputs_of
from collabopt.components.engine.records import read_leaf_report
from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.stages import import_model_stage, load_dataset_stage, run_stage
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.components.engine.versions import versions
from collabopt.pipelines.arguments import EXAMPLE_PARAMETERS
from collabopt.pipelines.parameters import Parameters
from collabopt.pipelines.tree import ROOT, TREE

BELOW_CLUSTERING = TREE.restricted_to(["clustered_ptq", "cqat", "pruned_clustered_ptq", "pcqat"])
PALETTES = ("tensor", "channel")
FIGURES = ("accuracy", "gzip_bytes", "packed_bytes")


def grow(source: str, seed: int, directory: Path) -> list[dict[str, Any]]:
    """Runs the stages of one seed.

    Args:
        source: URI of the example.
        seed: Seeds splits, baseline and fine-tuning.
        directory: Where the stages write.

    Returns:
        One row for every leaf and palette.
    """
    parameters = dataclasses.asdict(Parameters(**{**EXAMPLE_PARAMETERS.get(source, {}), "seed": seed}))
    dataset = str(directory / "dataset")
    common: dict[str, Any] = {"task": DEFAULT_TASK, "overrides": {}}
    load_dataset_stage(source=source, output=dataset, settings={"seed": seed}, **common)
    baseline = str(directory / ROOT)
    import_model_stage(source=source, dataset=dataset, output=baseline, settings={"seed": seed}, **common)
    rows = []
    for stage in BELOW_CLUSTERING:
        settings = inputs_of(stage.technique.name, parameters)
        for palette in PALETTES if stage.leaf else PALETTES[:1]:
            output = directory / (f"{stage.name}-{palette}" if stage.leaf else stage.name)
            run_stage(
                stage.technique.name,
                stage=stage.name,
                parent=str(directory / stage.parent),
                dataset=dataset,
                output=str(output),
                settings=settings | ({"palette": palette} if stage.leaf else {}),
                **common,
            )
            if stage.leaf:
                metrics = read_leaf_report(output).metrics
                rows.append({"leaf": stage.name, "palette": palette, "seed": seed, **{f: metrics[f] for f in FIGURES}})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """Mean figures of every leaf and palette over the seeds, as Markdown."""
    lines = ["| leaf | palette | accuracy | gzip bytes | packed bytes |", "| --- | --- | --: | --: | --: |"]
    for leaf in BELOW_CLUSTERING.leaves():
        for palette in PALETTES:
            chosen = [row for row in rows if (row["leaf"], row["palette"]) == (leaf.name, palette)]
            accuracy, gzipped, packed = (statistics.mean(row[figure] for row in chosen) for figure in FIGURES)
            lines.append(f"| `{leaf.name}` | {palette} | {accuracy:.4f} | {gzipped:,.0f} | {packed:,.0f} |")
    return "\n".join(lines)


def main() -> None:
    """Measures, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--example", default="digits")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as directory, stage_host():
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{directory}/mlflow.db"
        for seed in arguments.seeds:
            rows += grow(f"example://{arguments.example}", seed, Path(directory) / str(seed))
    print(table(rows))
    if arguments.json:
        figures = {"measured": datetime.now().date().isoformat(), "cores": os.cpu_count(), "versions": versions()}
        figures |= {"example": arguments.example, "rows": rows}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
