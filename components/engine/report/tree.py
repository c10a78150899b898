"""The tree as it was grown, read from the leaves' lineages; stages that were not trained included."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.records import LeafReport, SkippedRecord, Step
from collabopt.components.engine.techniques import TECHNIQUES, pathway_of


@dataclass(frozen=True)
class TreeNode:
    """One stage.

    Attributes:
        path: Names of the stages from the baseline to this one.
        technique: What it did.
        metric: The deciding metric on the test split; None where it is not known.
        collaborative: Whether it lies on the collaborative pathway.
        packed_bytes: Size of the packed file of a leaf; None for other stages.
        state: `untrained` of a stage that was not trained, else of a leaf `winner`, `qualified`, `refused` or `broken`,
            and of other stages "".
    """

    path: tuple[str, ...]
    technique: str
    metric: float | None
    collaborative: bool
    packed_bytes: int | None = None
    state: str = ""

    @property
    def name(self) -> str:
        """Name of the stage."""
        return self.path[-1]

    @property
    def parent(self) -> tuple[str, ...]:
        """Path of the parent; empty for the baseline."""
        return self.path[:-1]

    @property
    def depth(self) -> int:
        """Steps from the baseline."""
        return len(self.path) - 1

    @property
    def is_leaf(self) -> bool:
        """Whether it is a file to deploy."""
        return TECHNIQUES[self.technique].deploys


def grown_tree(
    decision: Decision,
    leaves: Mapping[str, LeafReport],
    untrained: Mapping[str, SkippedRecord] = MappingProxyType({}),
) -> list[TreeNode]:
    """Every stage on the way to a leaf, depth first: leaves before branches, then in the order of techniques."""
    qualified = {verdict.leaf: verdict.qualified for verdict in decision.verdicts}
    nodes: dict[tuple[str, ...], TreeNode] = {}
    for _, record in sorted({**leaves, **untrained}.items()):
        skipped = isinstance(record, SkippedRecord)
        for length in range(1, len(record.lineage) + skipped):
            node = _node(record.lineage[:length], decision)
            nodes.setdefault(node.path, node)
    for name, report in sorted(leaves.items()):
        path = tuple(step.name for step in report.lineage)
        nodes[path] = TreeNode(
            path=path,
            technique=report.technique,
            metric=report.metrics.get(decision.baseline.metric),
            collaborative=report.pathway == "collaborative",
            packed_bytes=report.deployed.packed_bytes or None,
            state=state_of(name, report, decision.winner, qualified.get(name, False)),
        )
    return list(_below((), nodes))


def state_of(name: str, report: LeafReport, winner: str | None, qualified: bool) -> str:
    """`winner`, `broken`, `qualified` or `refused`."""
    if not report.contract.holds:
        return "broken"
    if name == winner:
        return "winner"
    return "qualified" if qualified else "refused"


def _node(way: list[Step], decision: Decision) -> TreeNode:
    """A stage that has no file."""
    step = way[-1]
    return TreeNode(
        path=tuple(each.name for each in way),
        technique=step.technique,
        metric=decision.baseline.value if len(way) == 1 else step.metric_value,
        collaborative=pathway_of(each.technique for each in way) == "collaborative",
        state="untrained" if step.skipped else "",
    )


def _below(parent: tuple[str, ...], nodes: Mapping[tuple[str, ...], TreeNode]) -> list[TreeNode]:
    children = [node for node in nodes.values() if node.parent == parent]
    order = list(TECHNIQUES)
    children.sort(key=lambda node: (not node.is_leaf, order.index(node.technique), node.name))
    return [each for child in children for each in (child, *_below(child.path, nodes))]
