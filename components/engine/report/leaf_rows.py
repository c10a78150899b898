"""One row of the leaf table: verdict and report, side by side."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from collabopt.components.engine.gate.decision import Decision, Verdict
from collabopt.components.engine.records import DeployedTensor, LeafReport, NpuEstimate
from collabopt.components.engine.report.compressible import compressible
from collabopt.components.engine.report.tree import state_of


@dataclass(frozen=True)
class LeafRow:
    """What the page says of one leaf.

    Attributes:
        verdict: What the gate thinks of it.
        report: What it says of itself.
        state: `winner`, `qualified`, `refused` or `broken`.
    """

    verdict: Verdict
    report: LeafReport
    state: str

    @property
    def name(self) -> str:
        """Name of the leaf."""
        return self.verdict.leaf

    @property
    def compressible(self) -> list[DeployedTensor]:
        """Weight tensors that pruning and clustering work on."""
        return compressible(self.report.deployed.weights)

    @property
    def sparsity(self) -> float | None:
        """Share of zeros in them; None where there are none."""
        total = sum(math.prod(tensor.shape) for tensor in self.compressible)
        if not total:
            return None
        return sum(tensor.zero_fraction * math.prod(tensor.shape) for tensor in self.compressible) / total

    @property
    def most_distinct(self) -> int | None:
        """Most distinct values in one of them; None where there are none."""
        return max((tensor.distinct_values for tensor in self.compressible), default=None)

    @property
    def npu(self) -> NpuEstimate | None:
        """Estimate for the NPU; None where nothing was estimated."""
        return self.report.footprint.npu if self.report.footprint else None

    @property
    def broken_layers(self) -> list[str]:
        """Layers whose claims do not hold, every one once."""
        return sorted({each.layer for each in self.report.contract.broken})


def leaf_rows(decision: Decision, leaves: Mapping[str, LeafReport]) -> list[LeafRow]:
    """Leaves that were trained: the winner first, then what qualifies, then the rest; each by packed size."""
    rows = [
        LeafRow(
            verdict,
            leaves[verdict.leaf],
            state_of(verdict.leaf, leaves[verdict.leaf], decision.winner, verdict.qualified),
        )
        for verdict in decision.verdicts
        if verdict.trained
    ]
    order = ("winner", "qualified", "refused", "broken")
    return sorted(rows, key=lambda row: (order.index(row.state), row.report.deployed.packed_bytes, row.name))
