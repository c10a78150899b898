"""Where the leaves come from: every stage with its hyperparameters, and the packages that ran it."""

from collections.abc import Mapping
from dataclasses import dataclass

from collabopt.components.engine.records import LeafReport, StageRecord, Step
from collabopt.components.engine.report.tree import TreeNode


@dataclass(frozen=True)
class LineageRow:
    """One stage.

    Attributes:
        step: Stage, technique, hyperparameters and metric.
        parent: Name of the stage before; "" for the baseline.
        leaves: The leaves it led to.
    """

    step: Step
    parent: str
    leaves: tuple[str, ...]


@dataclass(frozen=True)
class VersionRow:
    """One package.

    Attributes:
        package: Its name.
        used: Version -> the stages that ran with it.
    """

    package: str
    used: dict[str, tuple[str, ...]]

    @property
    def agrees(self) -> bool:
        """Whether all stages that name it ran with the same version."""
        return len(self.used) == 1


def lineage_rows(leaves: Mapping[str, StageRecord], nodes: list[TreeNode]) -> list[LineageRow]:
    """Every stage once, in the order of the tree; twice where leaves disagree on its hyperparameters."""
    rows = []
    for node in nodes:
        below: list[tuple[Step, list[str]]] = []
        for name in sorted(leaves):
            lineage = leaves[name].lineage[: len(node.path)]
            if tuple(step.name for step in lineage) != node.path:
                continue
            same = next((names for step, names in below if step == lineage[-1]), None)
            if same is None:
                below.append((lineage[-1], [name]))
            else:
                same.append(name)
        parent = node.parent[-1] if node.parent else ""
        rows += [LineageRow(step, parent, tuple(names)) for step, names in below]
    return rows


def version_rows(baseline: StageRecord, leaves: Mapping[str, LeafReport]) -> list[VersionRow]:
    """Packages by name, with the stages that ran with each version."""
    used: dict[str, dict[str, list[str]]] = {}
    records = {baseline.stage: baseline, **{name: leaves[name] for name in sorted(leaves)}}
    for name, record in records.items():
        for package, version in record.versions.items():
            used.setdefault(package, {}).setdefault(version, []).append(name)
    return [
        VersionRow(package, {version: tuple(names) for version, names in sorted(used[package].items())})
        for package in sorted(used)
    ]
