"""Settings of single layers, through the stages of the tree down to the deployed bytes."""

import pytest

from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.store import save_model
from collabopt.components.engine.records import (
    TFLITE_FILE,
    MetricOfRecord,
    StageRecord,
    Step,
    read_leaf_report,
    read_stage_record,
    write_record,
)
from collabopt.components.engine.stages import run_stage
from collabopt.components.engine.training.task import DEFAULT_TASK

TRAINING = {"epochs": 1, "batch_size": 64, "learning_rate": 0.003}
# Of the four layers one goes as the stage says, one has its own number, one its own by a pattern, one is left out.
PRUNING = {
    "target_sparsity": 0.5,
    "layers": {"wide": {"target_sparsity": 0.75}, "d*": {"target_sparsity": 0.25}, "conv": "exclude"},
}
CLUSTERING = {
    "number_of_clusters": 16,
    "layers": {"conv": {"number_of_clusters": 4}, "w*": {"number_of_clusters": 8}, "dense": "exclude"},
}
SPARSITY = {"wide": 0.75, "narrow": 0.5, "dense": 0.25}
CLUSTERS = {"conv": 4, "wide": 8, "narrow": 16}


@pytest.fixture(scope="module")
def tree(data, tmp_path_factory):
    """Runs a stage below another: (technique, parent, settings) -> its directory."""
    import tf_keras

    root = tmp_path_factory.mktemp("tree")
    patch = pytest.MonkeyPatch()
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{root / 'mlflow.db'}")
    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    x = layers.Conv2D(16, 3, activation="relu", name="wide")(x)
    x = layers.Conv2D(8, 1, activation="relu", name="narrow")(x)
    model = tf_keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(layers.Flatten()(x)))
    (root / "baseline").mkdir()
    save_model(model, root / "baseline")
    metric = MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9)
    lineage = [Step(stage="baseline", technique="import_model")]
    write_record(
        StageRecord(lineage=lineage, task=DEFAULT_TASK, dataset_digest=data.spec.digest, metric=metric),
        root / "baseline",
    )

    def run(technique, stage, parent, **settings):
        output = root / stage
        run_stage(
            technique,
            stage=stage,
            parent=str(root / parent),
            dataset=str(data.directory),
            output=str(output),
            task=DEFAULT_TASK,
            settings={**TRAINING, **settings},
            overrides={},
        )
        return output

    yield run
    patch.undo()


@pytest.fixture(scope="module")
def pruned(tree):
    return tree("prune", "pruned", "baseline", **PRUNING)


@pytest.fixture(scope="module")
def pruned_clustered(tree, pruned):
    return tree("sparsity_preserving_cluster", "pruned_clustered", "pruned", **CLUSTERING)


@pytest.fixture(scope="module")
def clustered(tree):
    return tree("cluster", "clustered", "baseline", **CLUSTERING)


def deployed_tensors(leaf):
    return {each.layer: each for each in inspect_tflite((leaf / TFLITE_FILE).read_bytes()).weights}


def check_sparsity(leaf):
    report = read_leaf_report(leaf)
    assert report.contract.holds, report.contract.broken
    assert report.claims.sparsity == pytest.approx(SPARSITY, abs=0.01)
    tensors = deployed_tensors(leaf)
    for layer, share in SPARSITY.items():
        assert tensors[layer].zero_fraction >= share - 0.01
    assert tensors["conv"].zero_fraction < 0.2


def check_clusters(leaf):
    report = read_leaf_report(leaf)
    assert report.contract.holds, report.contract.broken
    assert report.claims.clusters == CLUSTERS
    tensors = deployed_tensors(leaf)
    for layer, clusters in CLUSTERS.items():
        assert tensors[layer].distinct_values <= clusters
    assert tensors["dense"].distinct_values > 16


def test_the_lineage_keeps_what_was_asked_for(pruned):
    assert read_stage_record(pruned).lineage[-1].settings["layers"] == PRUNING["layers"]


def test_pqat_keeps_the_sparsity_of_every_layer(tree, pruned):
    check_sparsity(tree("sparsity_preserving_qat", "pqat", "pruned"))


def test_cqat_keeps_the_clusters_of_every_layer(tree, clustered):
    check_clusters(tree("cluster_preserving_qat", "cqat", "clustered"))


def test_pcqat_keeps_both_and_so_the_zeros_of_a_layer_that_is_not_clustered(tree, pruned_clustered):
    leaf = tree("sparsity_cluster_preserving_qat", "pcqat", "pruned_clustered")
    check_sparsity(leaf)
    check_clusters(leaf)


@pytest.mark.parametrize(
    ("technique", "parent", "own"),
    [
        ("prune", "baseline", {"target_sparsity": 0.8}),
        ("cluster", "baseline", {"number_of_clusters": 4}),
        ("sparsity_preserving_cluster", "pruned", {"number_of_clusters": 4}),
    ],
)
def test_a_pattern_without_a_layer_is_refused_before_training(tree, pruned, technique, parent, own, tmp_path):
    with pytest.raises(CollaboptError, match=r"matches 'batch_\*'") as error:
        tree(technique, "refused", parent, layers={"batch_*": own})
    assert "conv, wide, narrow, dense" in str(error.value)
    assert not (pruned.parent / "refused").exists()


@pytest.mark.parametrize(("technique", "done"), [("prune", "pruned"), ("cluster", "clustered")])
def test_settings_that_leave_out_every_layer_are_refused(tree, technique, done):
    with pytest.raises(CollaboptError, match=f"so nothing is {done}"):
        tree(technique, "refused", "baseline", layers={"*": "exclude"})
