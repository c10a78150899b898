"""What an update costs where devices run the same leaf of an earlier run: the packed file, patches from the old one.

`python tests/benchmarks/update_cost.py OLD NEW [NEW ...] [--json FILE]` compares the leaves of finished runs, given by
their output directories.
"""

import argparse
import json
from datetime import datetime
from pathlib import Path
from typing import Any

from collabopt.components.engine.deployed.delta import make_patches
from collabopt.components.engine.records import TFLITE_FILE, read_leaf_report
from collabopt.components.engine.versions import versions


def compared(old: Path, new: Path) -> list[dict[str, Any]]:
    """One row for every leaf that both runs have; all sizes in bytes."""
    rows = []
    for leaf in sorted(path.name for path in (old / "leaves").iterdir() if (new / "leaves" / path.name).is_dir()):
        before, after = ((run / "leaves" / leaf / TFLITE_FILE).read_bytes() for run in (old, new))
        deployed = read_leaf_report(new / "leaves" / leaf).deployed
        patches = {} if before == after else {each.format: len(each.content) for each in make_patches(before, after)}
        sizes = {"tflite": deployed.tflite_bytes, "packed": deployed.packed_bytes, **patches}
        rows.append({"old": old.name, "new": new.name, "leaf": leaf, "same_file": before == after, **sizes})
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as Markdown."""
    lines = ["| new run | leaf | packed | bsdiff | zstd | update |", "| --- | --- | --: | --: | --: | --: |"]
    for row in rows:
        if row["same_file"]:
            lines.append(f"| {row['new']} | `{row['leaf']}` | {row['packed']:,} | the same file | | 0 |")
        else:
            sizes = row["packed"], row["bsdiff"], row["zst"]
            cells = " | ".join(f"{size:,}" for size in (*sizes, min(sizes)))
            lines.append(f"| {row['new']} | `{row['leaf']}` | {cells} |")
    return "\n".join(lines)


def main() -> None:
    """Compares, prints and writes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path, nargs="+")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    given = parser.parse_args()
    rows = [row for new in given.new for row in compared(given.old, new)]
    print(table(rows))
    if given.json:
        figures = {"measured": datetime.now().date().isoformat(), "versions": versions(), "rows": rows}
        given.json.write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
