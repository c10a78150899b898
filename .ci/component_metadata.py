"""Checks every component's metadata.yaml as kubeflow/pipelines-components does (its scripts/validate_metadata).

Fields in their order and no others, a known stability, versions as semantic versioning has them, and a verification
within the last year: whoever runs all of `.ci/run` on the present release may write today's date.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

FOLDER = Path(__file__).resolve().parent.parent / "components"
REQUIRED = ["name", "stability", "dependencies", "lastVerified"]
OPTIONAL = {"tags", "ci", "links"}
STABILITIES = ("experimental", "alpha", "beta", "stable")
VERSION = re.compile(r"(==|>=|<=)?\d+\.\d+\.\d+")
VALID = timedelta(days=365)


def problems(metadata: dict[str, Any], folder: str, now: datetime) -> Iterator[str]:
    """What is wrong with one file."""
    fields = [field for field in metadata if field not in OPTIONAL]
    if fields != REQUIRED:
        yield f"fields are {', '.join(map(str, fields))}; they must be {', '.join(REQUIRED)}, in this order"
        return
    if metadata["name"] != folder:
        yield f"name is {metadata['name']!r}, its folder is {folder!r}"
    if metadata["stability"] not in STABILITIES:
        yield f"stability is {metadata['stability']!r}; it must be one of {', '.join(STABILITIES)}"
    yield from _dependency_problems(metadata["dependencies"])
    verified = metadata["lastVerified"]
    if not isinstance(verified, datetime) or verified.tzinfo is None:
        yield f"lastVerified is {verified!s}; it must be a moment as 2026-11-23T00:00:00Z"
    elif abs(now - verified) >= VALID:
        yield f"lastVerified is {verified:%Y-%m-%d}, more than a year from {now:%Y-%m-%d}"
    tags = metadata.get("tags", [])
    if not isinstance(tags, list) or not all(isinstance(tag, str) for tag in tags):
        yield "tags must be a list of words"


def _dependency_problems(dependencies: Any) -> Iterator[str]:
    if not isinstance(dependencies, dict) or set(dependencies) - {"external_services"} != {"kubeflow"}:
        yield "dependencies must have kubeflow, and may have external_services"
        return
    if "Pipelines" not in [entry.get("name") for entry in dependencies["kubeflow"]]:
        yield "dependencies.kubeflow must name Pipelines"
    for entry in (*dependencies["kubeflow"], *dependencies.get("external_services", [])):
        if not VERSION.fullmatch(str(entry.get("version"))):
            yield f"version of {entry.get('name')} is {entry.get('version')!r}; write three numbers, as '>=2.17.0'"


def main() -> int:
    """Prints every problem; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER, help="where the components' folders are")
    parser.add_argument("--on", type=datetime.fromisoformat, default=datetime.now(UTC), help="the day to check for")
    options = parser.parse_args()
    found = [
        f"{file}: {problem}"
        for file in sorted(options.folder.glob("*/metadata.yaml"))
        for problem in problems(
            yaml.safe_load(file.read_text(encoding="utf-8")), file.parent.name, options.on.astimezone(UTC)
        )
    ]
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
