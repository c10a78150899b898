"""Predictions beside what the leaves have come to."""

from collections.abc import Iterable

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.figures import figures_of
from collabopt.components.engine.prescreen.recipe import configuration_of
from collabopt.components.engine.prescreen.records import Comparison, Prediction
from collabopt.components.engine.records import LeafReport

# What a prediction is for: bytes over the air and in the NPU's memory.
COMPARED = ("packed_bytes", "gzip_bytes", "zip_bytes", "npu_weight_bytes")


def compare(predictions: Iterable[Prediction], trained: Iterable[LeafReport]) -> list[Comparison]:
    """Compares every trained leaf with the prediction for its configuration, where there is one.

    Args:
        predictions: What was predicted.
        trained: Reports of the trained leaves.

    Returns:
        One per leaf and figure that both have.
    """
    by_leaf = {(each.leaf, _key(each.configuration)): each for each in predictions if not each.infeasible}
    compared = []
    for report in trained:
        configuration = configuration_of([(step.technique, step.settings) for step in report.lineage])
        prediction = by_leaf.get((report.stage, _key(configuration)))
        if prediction is None:
            continue
        figures = figures_of(report, prediction.accelerator)
        compared += [
            Comparison(
                leaf=report.stage,
                configuration=configuration,
                figure=name,
                predicted=prediction.figures[name],
                trained=figures[name],
                error=(prediction.figures[name] - figures[name]) / figures[name],
            )
            for name in COMPARED
            if name in prediction.figures and figures.get(name)
        ]
    return compared


def check_same_origin(reports: Iterable[LeafReport], dataset_digest: str, model: str) -> None:
    """Refuses leaves that predictions for a model and its data say nothing of.

    Raises:
        CollaboptError: A leaf was made from another model or other data.
    """
    for report in reports:
        source = report.lineage[0].settings.get("source", model)
        if report.dataset_digest != dataset_digest or source != model:
            what = f"the model {source}" if source != model else "another data set"
            raise CollaboptError(
                f"leaf '{report.stage}' was made from {what}, so its prediction cannot be compared",
                where="--against",
                todo="name the directory of a run with the same model, data and seed",
            )


def _key(configuration: dict[str, int | float]) -> tuple[tuple[str, float], ...]:
    return tuple(sorted((axis, float(value)) for axis, value in configuration.items()))
