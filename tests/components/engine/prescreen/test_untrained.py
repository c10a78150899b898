"""A predicted file is the one that the stages make when training changes nothing."""

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.store import load_stage_model, save_model
from collabopt.components.engine.prescreen.recipe import recipe_of
from collabopt.components.engine.prescreen.untrained import UNTRAINED, untrained_leaf
from collabopt.components.engine.records import TFLITE_FILE, MetricOfRecord, StageRecord, Step, write_record
from collabopt.components.engine.stages import run_stage
from collabopt.components.engine.techniques import TECHNIQUES
from collabopt.components.engine.training.task import DEFAULT_TASK
from collabopt.pipelines import parameters_of
from collabopt.pipelines.tree import TREE

# So small a step that no float32 weight moves.
UNMOVED = {"optimizer": "sgd", "learning_rate": 1e-30, "epochs": 1, "batch_size": 64}
STRUCTURE = {
    "prune": {"target_sparsity": 0.6},
    "cluster": {"number_of_clusters": 5},
    "sparsity_preserving_cluster": {"number_of_clusters": 5},
}
PARAMETERS = {**parameters_of("exhaustive"), "sparsity": 0.6, "clusters": 5}


LAYERS = {
    "pruned": {"layers": {"conv": "exclude", "d*": {"target_sparsity": 0.25}}},
    "pruned_clustered": {"layers": {"dense": "exclude", "conv": {"number_of_clusters": 3}}},
}


def recipe(leaf, overrides=None, **parameters):
    way = [(stage.name, stage.technique.name) for stage in TREE.path(leaf)]
    return recipe_of(way, {**PARAMETERS, **parameters}, overrides or {})


def test_every_technique_that_changes_weights_can_be_predicted():
    assert set(UNTRAINED) == {
        name for name, technique in TECHNIQUES.items() if technique.trains and not technique.deploys
    }


@pytest.fixture
def baseline(data, tmp_path, monkeypatch):
    """A baseline without BatchNormalization, whose statistics every training moves; gives its directory."""
    import tf_keras

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(image)
    x = layers.DepthwiseConv2D(3, activation="relu", name="depthwise")(x)
    x = layers.Conv2D(12, 1, activation="relu", name="pointwise")(x)
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax", name="dense")(layers.Flatten()(x)))
    for variable in model.trainable_variables:  # a bias of zero would become the step itself
        variable.assign(variable + 0.1)
    save_model(model, tmp_path / "baseline")
    record = StageRecord(
        lineage=[Step(stage="baseline", technique="import_model")],
        task=DEFAULT_TASK,
        dataset_digest=data.spec.digest,
        metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.3),
    )
    write_record(record, tmp_path / "baseline")
    return tmp_path / "baseline"


@pytest.fixture
def trained(data, baseline, tmp_path):
    """Runs the real stages down to a leaf, in steps that move nothing; gives the leaf's file."""

    def run(leaf, layers=None):
        parent = baseline
        for stage in TREE.path(leaf):
            output = tmp_path / stage.name
            run_stage(
                stage.technique.name,
                stage=stage.name,
                parent=str(parent),
                dataset=str(data.directory),
                output=str(output),
                task=DEFAULT_TASK,
                settings={**STRUCTURE.get(stage.technique.name, {}), **(layers or {}).get(stage.name, {})},
                overrides=UNMOVED if stage.trains else {},
            )
            parent = output
        return (parent / TFLITE_FILE).read_bytes()

    return run


@pytest.mark.parametrize("leaf", [leaf.name for leaf in TREE.leaves() if not leaf.trains])
def test_a_leaf_that_nothing_has_trained_is_predicted_to_the_byte(leaf, data, baseline, trained):
    predicted = untrained_leaf(load_stage_model(baseline), data, recipe(leaf))
    assert predicted.tflite == trained(leaf)
    assert predicted.contract.holds


def test_settings_of_single_layers_are_predicted_to_the_byte(data, baseline, trained):
    model = load_stage_model(baseline)
    predicted = untrained_leaf(model, data, recipe("pruned_clustered_ptq", LAYERS))
    assert predicted.tflite == trained("pruned_clustered_ptq", LAYERS)
    kernels = compressible_kernels(model)
    assert {name: round(float(np.mean(kernel == 0)), 2) for name, kernel in kernels.items()} == {
        "conv": 0,
        "pointwise": 0.6,
        "dense": 0.25,
    }
    assert len(np.unique(kernels["conv"])) == 3
    assert len(np.unique(kernels["pointwise"])) == 5
    assert len(np.unique(kernels["dense"])) > 5


@pytest.mark.parametrize("leaf", ["pruned_clustered_ptq", "pcqat"])
def test_the_structure_is_that_of_the_configuration(leaf, data, baseline):
    model = load_stage_model(baseline)
    predicted = untrained_leaf(model, data, recipe(leaf))
    for kernel in compressible_kernels(model).values():
        assert np.count_nonzero(kernel == 0) == round(kernel.size * 0.6)
        assert len(np.unique(kernel)) == 5
    assert predicted.contract.layers == ["conv", "dense", "pointwise"]


def test_more_clusters_than_distinct_weights_are_refused_with_the_reason(data, baseline):
    with pytest.raises(CollaboptError, match="no trainable layer has more than 5000 distinct weights"):
        untrained_leaf(load_stage_model(baseline), data, recipe("cqat", clusters=5000))
