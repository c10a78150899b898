"""Predictions beside what the leaves have come to."""

from collections.abc import Iterable

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.figures import figures_of
from collabopt.components.engine.prescreen.recipe import Recipe, configuration_of, recipe_with
from collabopt.components.engine.prescreen.records import Comparison, Prediction
from collabopt.components.engine.records import LeafReport
from collabopt.components.engine.settings import settings_for

# What a prediction is for: bytes over the air and in the NPU's memory.
COMPARED = ("packed_bytes", "gzip_bytes", "zip_bytes", "npu_weight_bytes")


def compare(predictions: Iterable[Prediction], trained: Iterable[LeafReport]) -> list[Comparison]:
    """Compares every trained leaf with the prediction that was made as it was, where there is one.

    Args:
        predictions: What was predicted.
        trained: Reports of the trained leaves.

    Returns:
        One per leaf and figure that both have.
    """
    made = {(each.leaf.partition("@")[0], each.recipe): each for each in predictions if not each.infeasible}
    compared = []
    for report in trained:
        prediction = made.get((report.stage, _recipe(report).name))
        if prediction is None:
            continue
        figures = figures_of(report, prediction.accelerator)
        compared += [
            Comparison(
                leaf=report.name,
                configuration=configuration_of([(step.technique, step.settings) for step in report.lineage]),
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


def _recipe(report: LeafReport) -> Recipe:
    steps = report.lineage[1:]
    return recipe_with([(step.technique, settings_for(step.technique, step.settings, step.stage)) for step in steps])
