"""Predictions beside trained leaves."""

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.prescreen.compare import check_same_origin, compare
from collabopt.components.engine.prescreen.recipe import recipe_of
from collabopt.components.engine.prescreen.records import Prediction
from collabopt.components.engine.records import (
    Contract,
    DeployedModel,
    Footprint,
    LeafReport,
    MetricOfRecord,
    NpuEstimate,
    Step,
)

NPU = {"accelerator": "ethos-u55-128", "system_config": "s", "memory_mode": "m", "tool": "vela", "supported": True}


WAY = [("pruned", "prune"), ("pqat", "sparsity_preserving_qat")]


def report(sparsity=0.5, packed_bytes=10_000, source="m.keras", digest="d1", trial=None, **pruning):
    return LeafReport(
        lineage=[
            Step(stage="baseline", technique="import_model", settings={"source": source}),
            Step(stage="pruned", technique="prune", settings={"target_sparsity": sparsity, **pruning}),
            Step(stage="pqat", technique="sparsity_preserving_qat", settings={"epochs": 7}, trial=trial),
        ],
        task="t:T",
        dataset_digest=digest,
        metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
        metrics={"accuracy": 0.9},
        deployed=DeployedModel(
            sha256="ab",
            tflite_bytes=20_000,
            gzip_bytes=12_000,
            zip_bytes=12_500,
            packed_bytes=packed_bytes,
            input_dtype="int8",
            output_dtype="int8",
            operators={},
        ),
        contract=Contract(),
        footprint=Footprint(npu=NpuEstimate(**NPU, weight_bytes=4000, latency_ms=0.1), host=[], activation_bytes=1),
    )


def prediction(sparsity=0.5, accelerator="ethos-u55-128", **figures):
    given = {"packed_bytes": 9_900, "gzip_bytes": 12_600, "zip_bytes": 12_500, "npu_weight_bytes": 4_100, **figures}
    return Prediction(
        leaf="pqat",
        configuration={"sparsity": sparsity},
        accelerator=accelerator,
        figures=given,
        recipe=recipe_of(WAY, {"sparsity": sparsity}, {}).name,
    )


def test_a_trained_leaf_is_compared_with_the_prediction_for_its_configuration():
    compared = compare([prediction(0.8, packed_bytes=1), prediction(0.5)], [report()])
    assert {each.figure: each.error for each in compared} == pytest.approx(
        {"packed_bytes": -0.01, "gzip_bytes": 0.05, "zip_bytes": 0.0, "npu_weight_bytes": 0.025}
    )
    assert {(each.leaf, each.configuration["sparsity"]) for each in compared} == {("pqat", 0.5)}


def test_what_was_not_predicted_is_not_compared():
    assert compare([prediction(0.8)], [report(0.5)]) == []
    infeasible = Prediction(leaf="pqat", configuration={"sparsity": 0.5}, accelerator="ethos-u55-128", infeasible="no")
    assert compare([infeasible], [report(0.5)]) == []


def test_a_leaf_whose_layers_had_settings_of_their_own_is_not_compared_with_one_without():
    assert compare([prediction()], [report(layers={"conv": "exclude"})]) == []


def test_leaves_of_several_trials_are_told_apart():
    compared = compare([prediction(0.5), prediction(0.8)], [report(trial=0), report(0.8, trial=3)])
    assert {(each.leaf, each.configuration["sparsity"]) for each in compared} == {("pqat@0", 0.5), ("pqat@3", 0.8)}


def test_figures_on_another_npu_are_not_compared():
    compared = compare([prediction(accelerator="ethos-u65-256")], [report()])
    assert [each.figure for each in compared] == ["packed_bytes", "gzip_bytes", "zip_bytes"]


@pytest.mark.parametrize(
    ("trained", "message"),
    [({"source": "other.keras"}, "the model other.keras"), ({"digest": "d2"}, "another data set")],
)
def test_leaves_of_another_origin_are_refused(trained, message):
    with pytest.raises(CollaboptError, match=f"leaf 'pqat' was made from {message}"):
        check_same_origin([report(**trained)], "d1", "m.keras")
    check_same_origin([report()], "d1", "m.keras")
