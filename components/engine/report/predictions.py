"""What was predicted of every leaf before training, beside what it has come to."""

from dataclasses import dataclass

from collabopt.components.engine.gate.decision import Decision
from collabopt.components.engine.prescreen.compare import COMPARED
from collabopt.components.engine.prescreen.records import Prescreen


@dataclass(frozen=True)
class Cell:
    """One figure of a leaf.

    Attributes:
        predicted: Without training; None where it is not known.
        trained: Of the trained leaf; None where it was not trained or the figure is not known.
        error: Of the prediction, as a share of the trained leaf's figure; positive where it is too large.
    """

    predicted: float | None
    trained: float | None = None
    error: float | None = None


@dataclass(frozen=True)
class PredictionRow:
    """One leaf.

    Attributes:
        leaf: Name of the leaf.
        cells: One per figure of `COMPARED`.
        trained: Whether it was trained.
    """

    leaf: str
    cells: tuple[Cell, ...]
    trained: bool


def prediction_rows(predicted: Prescreen, decision: Decision) -> list[PredictionRow]:
    """The leaves of the decision that something was predicted of, in its order."""
    predictions = {each.leaf: each.figures for each in predicted.predictions if not each.infeasible}
    compared = {(each.leaf, each.figure): each for each in predicted.comparisons}

    def cell(leaf: str, figure: str) -> Cell:
        if found := compared.get((leaf, figure)):
            return Cell(found.predicted, found.trained, found.error)
        return Cell(predictions[leaf].get(figure))

    return [
        PredictionRow(verdict.leaf, tuple(cell(verdict.leaf, figure) for figure in COMPARED), verdict.trained)
        for verdict in decision.verdicts
        if verdict.leaf in predictions
    ]
