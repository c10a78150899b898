"""Writes every component's README.md from its spec and its metadata.yaml; with --check, only compares.

Layout after kubeflow/pipelines-components (KEP-913): overview, inputs, outputs, usage.
"""

import inspect
import sys
from pathlib import Path

import yaml

from collabopt import components

FOLDER = Path(__file__).resolve().parent.parent / "components"


def readme(name: str) -> str:
    """README text of one component."""
    component = getattr(components, name)
    spec = component.component_spec
    metadata = yaml.safe_load((FOLDER / name / "metadata.yaml").read_text(encoding="utf-8"))
    summary, _, details = inspect.cleandoc(component.python_func.__doc__).partition("\n\n")
    details = details.partition("Args:")[0].strip()
    versions = ", ".join(f"{d['name']} {d['version']}" for d in metadata["dependencies"]["kubeflow"])
    parts = [
        f"# {name}",
        f"> Stability: {metadata['stability']}. Last verified {metadata['lastVerified']:%Y-%m-%d} with {versions}.",
        summary + ("\n\n" + details if details else ""),
        "## Inputs",
        _table(("Input", "Type", "Default", "Description"), [_input_row(*item) for item in spec.inputs.items()]),
        "## Outputs",
        _table(("Output", "Type", "Description"), [_output_row(*item) for item in (spec.outputs or {}).items()]),
        "## Usage",
        f"```python\nfrom collabopt.components import {name}\n```",
    ]
    return "\n\n".join(parts) + "\n"


def _input_row(name: str, spec: object) -> tuple[str, ...]:
    default = "required" if not spec.optional else f"`{spec.default!r}`" if spec.default is not None else "none"
    return f"`{name}`", f"`{_type(spec.type)}`", default, spec.description or ""


def _output_row(name: str, spec: object) -> tuple[str, ...]:
    return f"`{name}`", f"`{_type(spec.type)}`", spec.description or ""


def _type(kind: str) -> str:
    return kind.partition("@")[0]


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join("| " + " | ".join(" ".join(cell.split()) for cell in line) + " |" for line in lines)


def main() -> int:
    """Writes, or with --check compares; returns the exit status."""
    check = "--check" in sys.argv[1:]
    stale = []
    for name in components.CATALOGUE:
        path = FOLDER / name / "README.md"
        text = readme(name)
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
            if not check:
                path.write_text(text, encoding="utf-8")
    if check and stale:
        print(f"stale README.md of: {', '.join(stale)}; run `make readmes`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
