"""Leaves as a stage writes them: what `report.json` says of their contract, and what `model.tflite` holds."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels
from collabopt.components.engine.compression.pruning import prune_at_once
from collabopt.components.engine.deployed.activation_memory import activation_bytes
from collabopt.components.engine.deployed.evaluate import predict
from collabopt.components.engine.deployed.footprint import footprint_scalars
from collabopt.components.engine.deployed.npu import estimate_npu
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.proof import prove
from collabopt.components.engine.models.store import load_stage_model, save_model
from collabopt.components.engine.progress import PROGRESS_FILE_VARIABLE
from collabopt.components.engine.records import (
    REPORT_FILE,
    TFLITE_FILE,
    MetricOfRecord,
    Proof,
    StageRecord,
    Step,
    read_leaf_report,
    read_stage_record,
    write_record,
)
from collabopt.components.engine.settings import PruningSettings
from collabopt.components.engine.stages import outcome, run_stage
from collabopt.components.engine.tracking import StageRun
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.confidence import confidence_interval
from collabopt.components.engine.training.task import DEFAULT_TASK
from tests.components.engine.compressed_kernels import (
    claims_on,
    half_zero,
    of_few_values,
    without_largest_in_every_other_channel,
)

LINEAGE = [
    Step(stage="baseline", technique="import_model"),
    Step(stage="pruned", technique="prune"),
    Step(stage="clustered", technique="sparsity_preserving_cluster"),
]
TRAINING = {"epochs": 1, "batch_size": 64, "learning_rate": 0.003}
QAT = "quantize_aware_train"
PQAT = "sparsity_preserving_qat"
CQAT = "cluster_preserving_qat"
PCQAT = "sparsity_cluster_preserving_qat"
PTQ = "post_training_quantize"


def plain(layers, x):
    return layers.Conv2D(8, 3, activation="relu", name="conv")(x)


def along_time_and_transposed(layers, x):
    """Conv1D, which TFMOT does not quantize, and Conv2DTranspose, which its preserving schemes refuse."""
    time = layers.Conv1D(8, 3, activation="relu", name="along_time")(layers.Reshape((8, 8))(x))
    image = layers.Conv2DTranspose(4, 3, activation="relu", name="transposed")(x)
    return layers.Concatenate()([layers.GlobalAveragePooling1D()(time), layers.GlobalAveragePooling2D()(image)])


def beyond_tfmot(layers, x):
    """Rescaling, hard-swish of operators, squeeze-and-excite, and normalizations that fold into nothing or Dense."""
    import tensorflow as tf

    x = layers.Conv2D(8, 3, name="conv")(layers.Rescaling(2.0, -1.0)(x))
    x = x * tf.nn.relu6(x + 3) / 6
    gate = layers.Dense(4, activation="relu", name="squeeze")(layers.GlobalAveragePooling2D()(x))
    gate = layers.Dense(8, activation="sigmoid", name="excite")(gate)
    x = layers.Multiply()([x, layers.Reshape((1, 1, 8))(gate)])
    x = layers.Conv2D(8, 1, activation="relu", name="behind")(layers.BatchNormalization()(layers.ReLU()(x)))
    x = layers.Dense(8, use_bias=False, name="hidden")(layers.GlobalAveragePooling2D()(x))
    return layers.ReLU()(layers.BatchNormalization()(x))


def pooled_for_two(layers, x):
    """As in DenseNet: the converter refuses the ranges that training has learned around the pooling."""
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(8, 3, use_bias=False, name="conv")(x)))
    x = layers.AveragePooling2D(2)(x)
    y = layers.Conv2D(8, 1, name="behind")(layers.ReLU()(layers.BatchNormalization()(x)))
    return layers.ReLU()(layers.BatchNormalization()(layers.Concatenate()([x, y])))


def normalized_between(layers, x):
    """Normalizations that Dense layers read, as networks for tables have them; the converter would move them there."""

    def normalized(x):
        normalization = layers.BatchNormalization()
        x = normalization(x)
        normalization.gamma.assign(np.linspace(0.5, 2, x.shape[-1]))
        return x

    x = normalized(layers.Flatten()(x))
    x = layers.Dense(16, activation="relu", bias_initializer="ones", name="hidden")(x)
    x = layers.Dense(16, bias_initializer="ones", name="linear")(layers.Dropout(0.1)(normalized(x)))
    return layers.Dense(16, activation="relu", bias_initializer="ones", name="behind")(normalized(x))


def dead_channels(layers, x):
    """Gammas of zero: the scale of a channel that training folds them into would be zero."""
    normalization = layers.BatchNormalization()
    x = normalization(layers.Conv2D(8, 3, use_bias=False, name="conv")(x))
    normalization.gamma.assign([0, 0.5, 1, 1.5, 2, 0, 1, 2])
    return layers.ReLU()(x)


def with_dropout(layers, x):
    """Its training draws random numbers in every step."""
    return layers.Dropout(0.3)(plain(layers, x))


def elu(layers, x):
    return layers.Conv2D(8, 3, activation="elu", name="conv")(x)


def compressed(body):
    """The net with half of each kernel zero and few values in the rest; not every channel has the largest."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(0)
    image = layers.Input((8, 8, 1))
    x = layers.Flatten()(body(layers, image))
    model = tf_keras.Model(image, layers.Dense(3, activation="softmax", name="dense")(x))
    for name, kernel in compressible_kernels(model).items():
        values = without_largest_in_every_other_channel(of_few_values(kernel), axis=-1)
        model.get_layer(name).kernel.assign(half_zero(values, kernel))
    return model


@pytest.fixture
def save_parent(data, tmp_path):
    """Writes a pruned and clustered parent, and gives its directory."""

    def save(body):
        model = compressed(body)
        save_model(model, tmp_path / "parent")
        record = StageRecord(
            lineage=LINEAGE,
            task=DEFAULT_TASK,
            dataset_digest=data.spec.digest,
            metric=MetricOfRecord(name="accuracy", higher_is_better=True, baseline=0.9),
            claims=claims_on(model, "sparse", "clustered"),
        )
        write_record(record, tmp_path / "parent")
        return tmp_path / "parent"

    return save


@pytest.fixture
def attempt(data, tmp_path, monkeypatch):
    """Runs a technique from a parent's directory to a leaf's."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    monkeypatch.setenv(PROGRESS_FILE_VARIABLE, str(tmp_path / "progress.jsonl"))

    def run(technique, parent, output, **settings):
        import tf_keras

        # A stage has a process of its own, in which Keras counts names from the start.
        tf_keras.backend.clear_session()
        run_stage(
            technique,
            stage="leaf",
            parent=str(parent),
            dataset=str(data.directory),
            output=str(output),
            task=DEFAULT_TASK,
            settings=settings if technique == PTQ else {**TRAINING, **settings},
            overrides={},
        )

    return run


@pytest.fixture
def leaf(save_parent, attempt, tmp_path):
    """Runs a technique below a pruned and clustered parent, and gives the leaf's directory."""

    def run(technique, body, **settings):
        import tf_keras

        number = len(list(tmp_path.glob("leaf*")))
        output = tmp_path / f"leaf{number}"
        parent = save_parent(body)
        tf_keras.utils.set_random_seed(100 + number)  # no process begins in the random state of another
        attempt(technique, parent, output, **settings)
        return output

    return run


def weights(report):
    return {tensor.layer or tensor.name: tensor for tensor in report.deployed.weights}


def calibrated(tmp_path):
    return '"calibrating"' in (tmp_path / "progress.jsonl").read_text()


@pytest.mark.parametrize("technique", [PTQ, CQAT])
def test_a_clustered_tensor_has_one_palette_or_one_per_channel_as_the_settings_say(leaf, technique):
    tensor, channel = (read_leaf_report(leaf(technique, plain, palette=where)) for where in ("tensor", "channel"))
    assert (tensor.claims.palette, channel.claims.palette) == ("tensor", "channel")
    for report in (tensor, channel):
        assert report.contract.layers == ["conv", "dense"]
        assert report.contract.holds, report.contract.broken
    allowed = tensor.claims.clusters["conv"]
    assert weights(tensor)["conv"].distinct_values <= allowed
    assert weights(channel)["conv"].distinct_values > allowed
    assert weights(channel)["conv"].max_distinct_values_per_channel <= allowed


@pytest.mark.parametrize("technique", [QAT, PCQAT])
def test_layers_beyond_tfmot_are_quantized_from_calibration_data(leaf, technique, tmp_path):
    report = read_leaf_report(leaf(technique, beyond_tfmot, representative_samples=32))
    assert calibrated(tmp_path)
    assert (report.deployed.float_operators, report.deployed.float_weights) == ([], [])
    assert (report.deployed.input_dtype, report.deployed.output_dtype) == ("int8", "int8")
    assert report.contract.holds, report.contract.broken
    claimed = ["behind", "conv", "dense", "excite", "hidden", "squeeze"]
    assert report.contract.layers == ([] if technique == QAT else claimed)


def test_ranges_of_training_that_the_converter_refuses_are_replaced_by_calibrated_ones(leaf, tmp_path):
    report = read_leaf_report(leaf(PCQAT, pooled_for_two, representative_samples=32))
    assert calibrated(tmp_path)
    assert (report.deployed.float_operators, report.deployed.float_weights) == ([], [])
    assert report.contract.layers == ["behind", "conv", "dense"]
    assert report.contract.holds, report.contract.broken


@pytest.mark.parametrize("technique", [PTQ, PQAT, PCQAT])
def test_conv1d_and_conv2d_transpose_keep_zeros_and_palettes(leaf, technique):
    report = read_leaf_report(leaf(technique, along_time_and_transposed))
    assert report.contract.holds, report.contract.broken
    assert report.contract.layers == ["along_time", "dense", "transposed"]
    assert report.deployed.float_operators == []
    for layer, kernel in compressible_kernels(compressed(along_time_and_transposed)).items():
        tensor = weights(report)[layer]
        assert tensor.zero_fraction >= np.mean(kernel == 0)
        assert technique == PQAT or tensor.distinct_values <= len(np.unique(kernel))


@pytest.mark.parametrize("technique", [PTQ, PCQAT])
def test_a_palette_survives_normalizations_between_dense_layers(leaf, technique):
    report = read_leaf_report(leaf(technique, normalized_between))
    assert report.contract.layers == ["behind", "dense", "hidden", "linear"]
    assert report.contract.holds, report.contract.broken
    assert report.deployed.float_operators == []


def test_a_channel_that_a_gamma_of_zero_has_silenced_leaves_nothing_in_float(leaf):
    report = read_leaf_report(leaf(PCQAT, dead_channels))
    assert (report.deployed.float_operators, report.deployed.float_weights) == ([], [])
    assert report.contract.holds, report.contract.broken


def test_what_remains_float_is_listed_with_its_reason_and_does_not_break_the_leaf(leaf):
    report = read_leaf_report(leaf(PCQAT, elu))
    assert report.contract.holds, report.contract.broken
    assert report.deployed.float_weights == []
    assert len(report.deployed.float_reasons) == len(report.deployed.float_operators)
    assert "ELU" in report.deployed.float_operators


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(leaf):
    first, second, other = ((leaf(PCQAT, with_dropout, seed=seed) / TFLITE_FILE).read_bytes() for seed in (3, 3, 4))
    assert first == second
    assert first != other


def test_a_stage_retried_after_interruptions_gives_the_bytes_of_an_undisturbed_one(
    save_parent, attempt, tmp_path, monkeypatch
):
    parent, undisturbed, retried = save_parent(plain), tmp_path / "undisturbed", tmp_path / "retried"
    parent_files = contents(parent)
    attempt(PCQAT, parent, undisturbed, epochs=2)

    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(StageRun, "log_epoch", interrupt)
        attempt(PCQAT, parent, retried, epochs=2)
    with monkeypatch.context() as patch, pytest.raises(Interruption):
        patch.setattr(outcome, "write_record", interrupt)
        attempt(PCQAT, parent, retried, epochs=2)
    (retried / TFLITE_FILE).write_bytes((undisturbed / TFLITE_FILE).read_bytes()[:1000])
    (retried / REPORT_FILE).write_text('{"lineage": [')
    (retried / outcome.CURVE_FILE).write_text("epoch\n" + "1\n" * 1000)
    attempt(PCQAT, parent, retried, epochs=2)

    expected, found = contents(undisturbed), contents(retried)
    assert expected.keys() == found.keys() >= {Path(TFLITE_FILE), Path(REPORT_FILE), Path(outcome.CURVE_FILE)}
    assert {path for path in expected if found[path] != expected[path]} == {Path(REPORT_FILE)}
    reports = [read_leaf_report(directory) for directory in (undisturbed, retried)]
    assert reports[0].mlflow["run_id"] != reports[1].mlflow["run_id"]
    assert timeless(reports[0]) == timeless(reports[1])
    assert contents(parent) == parent_files


def timeless(report):
    """A report without what differs between two runs: their MLflow ids, and times on this machine."""
    metrics = {name: value for name, value in report.metrics.items() if not name.startswith("host_")}
    footprint = report.footprint.model_copy(update={"host": []})
    lineage = [step.model_copy(update={"mlflow_run_id": ""}) for step in report.lineage]
    return report.model_copy(update={"mlflow": {}, "metrics": metrics, "footprint": footprint, "lineage": lineage})


class Interruption(BaseException):
    """What ends a stage from outside; nothing in it may catch this and go on."""


def interrupt(*_):
    raise Interruption


def contents(directory):
    return {path.relative_to(directory): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def test_a_leaf_reports_what_it_costs_how_sure_its_metric_is_and_how_to_prove_it(leaf, data):
    directory = leaf(PTQ, plain, accelerator="ethos-u55-256")
    report, tflite = read_leaf_report(directory), (directory / TFLITE_FILE).read_bytes()
    measured = TASK.measure(predict(tflite, data.inputs("test")), data.labels("test"))
    assert report.metrics["accuracy"] == measured["accuracy"]

    assert report.footprint.npu == estimate_npu(tflite, "ethos-u55-256")
    assert report.footprint.activation_bytes == activation_bytes(tflite)
    assert [host.invokes for host in report.footprint.host] == [1000, 1000]
    assert footprint_scalars(report.footprint).items() <= report.metrics.items()
    assert report.lineage[-1].settings["accelerator"] == "ethos-u55-256"

    interval = report.interval
    assert interval == confidence_interval(TASK.metric, predict(tflite, data.inputs("test")), data.labels("test"))
    assert (interval.samples, interval.method) == (64, "Wilson")
    assert interval.low < measured["accuracy"] < interval.high
    assert (report.metrics["accuracy_low"], report.metrics["accuracy_high"]) == (interval.low, interval.high)
    assert report.metrics["test_samples"] == 64

    assert report.proof == Proof(samples=64, metrics=measured)
    prove(report, tflite, data)


def test_the_proof_of_a_large_test_split_is_its_first_samples(leaf, data, monkeypatch):
    monkeypatch.setattr(outcome, "PROOF_SAMPLES", 9)
    directory = leaf(PTQ, plain)
    report, tflite = read_leaf_report(directory), (directory / TFLITE_FILE).read_bytes()
    outputs = predict(tflite, data.inputs("test", 9))
    assert report.proof == Proof(samples=9, metrics=TASK.measure(outputs, data.labels("test", 9)))


def test_an_accelerator_that_does_not_exist_is_refused_before_any_work(save_parent, attempt, tmp_path):
    with pytest.raises(CollaboptError, match=r"accelerator='ethos-u99': Input should be 'ethos-u55-32', ") as refusal:
        attempt(QAT, save_parent(plain), tmp_path / "leaf", accelerator="ethos-u99")
    assert "stage 'leaf'" in refusal.value.where
    assert not (tmp_path / "leaf").exists()


def test_a_leaf_predicts_as_its_parent_does(leaf, data, tmp_path):
    """PTQ changes weights by a half of a 127th of the largest: class probabilities by hundredths."""
    tflite = (leaf(PTQ, plain) / TFLITE_FILE).read_bytes()
    inputs = data.inputs("test")
    expected = load_stage_model(tmp_path / "parent").predict(inputs, verbose=0)
    assert np.abs(predict(tflite, inputs) - expected).max() < 0.05


@pytest.mark.parametrize("technique", [QAT, PCQAT])
def test_a_leaf_may_learn_from_its_parent(leaf, technique):
    alone, *taught = (leaf(technique, plain, distillation_weight=weight) for weight in (0.0, 0.9, 0.9))
    by_labels, *by_both = ((directory / TFLITE_FILE).read_bytes() for directory in (alone, *taught))
    assert by_both[0] == by_both[1] != by_labels
    reports = [read_leaf_report(directory) for directory in (alone, taught[0])]
    assert all(report.contract.holds for report in reports)
    assert reports[0].deployed.operators == reports[1].deployed.operators
    assert reports[0].deployed.contents["weights"] == reports[1].deployed.contents["weights"]


def test_where_nothing_is_said_a_leaf_learns_from_its_parent_too(leaf):
    choices = ({}, {"distillation_weight": 0.5}, {"distillation_weight": 0.0})
    by_default, half, alone = (leaf(QAT, plain, **given) for given in choices)
    assert read_leaf_report(by_default).lineage[-1].settings["distillation_weight"] == 0.5
    files = [(directory / TFLITE_FILE).read_bytes() for directory in (by_default, half, alone)]
    assert files[0] == files[1] != files[2]


def test_a_pruned_model_learns_what_its_parent_was_before(prune, data, tmp_path):
    """The teacher alone, and no step of Adam's, which are as large for the least of gradients."""
    alone = {"distillation_weight": 1.0, "optimizer": "sgd", "learning_rate": 0.1, "epochs": 20}
    trained = load_stage_model(prune(DEFAULT_TASK, target_sparsity=0.8, **alone))
    parent = load_stage_model(tmp_path / "parent")
    inputs = data.inputs("train")
    expected = parent.predict(inputs, verbose=0)
    untrained = prune_at_once(load_stage_model(tmp_path / "parent"), PruningSettings(target_sparsity=0.8))[0]

    def distance(model):
        return np.mean((model.predict(inputs, verbose=0) - expected) ** 2)

    assert distance(trained) < 0.3 * distance(untrained)


@pytest.fixture
def prune(save_parent, data, tmp_path, monkeypatch):
    """Prunes for a task; returns where the outcome is written."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def run(task, **settings):
        run_stage(
            "prune",
            stage="pruned",
            parent=str(save_parent(plain)),
            dataset=str(data.directory),
            output=str(tmp_path / "pruned"),
            task=task,
            settings=settings,
            overrides={},
        )
        return tmp_path / "pruned"

    return run


def test_where_nothing_is_said_a_task_that_cannot_distil_learns_from_labels(prune, monkeypatch):
    task = dataclasses.replace(TASK, distillation=None)
    monkeypatch.setattr("collabopt.components.engine.training.classification.TASK", task)
    assert read_stage_record(prune(DEFAULT_TASK, epochs=1)).lineage[-1].settings["distillation_weight"] == 0


def test_a_task_that_cannot_distil_says_so_before_anything_is_trained(prune, tmp_path):
    with pytest.raises(CollaboptError, match="'regression' does not say how a model learns from another"):
        prune("tests.components.engine.training.regression_task:TASK", distillation_weight=0.4)
    assert not (tmp_path / "pruned").exists()
