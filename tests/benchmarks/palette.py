"""What one palette per tensor costs and gains against one scale per output channel, on the leaves below clustering.

`python tests/benchmarks/palette.py --example digits --seeds 0 1 2 [--json FILE]` grows the clustered part of the tree
once a seed, and every leaf twice: with `palette` set to `tensor`, the default, and to `channel`.
"""

import argparse
import json
import os
import statistics
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

from planted import metrics_of, plant

from collabopt.components.engine.stage_host import stage_host
from collabopt.components.engine.versions import versions
from collabopt.pipelines.tree import TREE

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
    planted = plant(source, seed, directory)
    rows = []
    for stage in BELOW_CLUSTERING:
        if not stage.leaf:
            planted.grow(stage, stage.parent, stage.name)
            continue
        for palette in PALETTES:
            metrics = metrics_of(planted.grow(stage, stage.parent, f"{stage.name}-{palette}", palette=palette))
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
        for seed in arguments.seeds:
            rows += grow(f"example://{arguments.example}", seed, Path(directory) / str(seed))
    print(table(rows))
    if arguments.json:
        figures = {"measured": datetime.now().date().isoformat(), "cores": os.cpu_count(), "versions": versions()}
        figures |= {"example": arguments.example, "rows": rows}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
