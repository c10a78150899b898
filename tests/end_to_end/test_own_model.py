"""Models, data and tasks of one's own, good and bad."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.records import read_leaf_report

TASKS = Path(__file__).parents[1] / "components" / "engine" / "training"
QUICK = ["--param", "epochs=1", "--param", "qat_epochs=1"]
RANDOM = np.random.default_rng(0)


def build(model_file, *, inputs=(8, 8, 1), classes=3, spoil=None):
    """Saves a small convolutional net."""
    import tf_keras

    layers = tf_keras.layers
    x = image = layers.Input(inputs)
    x = layers.Conv2D(8, 3, activation="relu", name="conv")(x)
    if spoil == "lambda":
        x = layers.Lambda(lambda tensor: tensor * 2, name="twice")(x)
    model = tf_keras.Model(image, layers.Dense(classes, activation="softmax")(layers.Flatten()(x)))
    if spoil == "nan":
        kernel, bias = model.get_layer("conv").get_weights()
        kernel[0, 0, 0, 0] = np.nan
        model.get_layer("conv").set_weights([kernel, bias])
    model.save(model_file)
    return model_file


def npz(file, *, shape=(8, 8, 1), classes=3, count=120, labels=None):
    features = RANDOM.uniform(0, 1, (count, *shape)).astype(np.float32)
    np.savez(file, x=features, y=np.arange(count) % classes if labels is None else labels)
    return file


def assert_refused(run, *parts):
    """One clear message, a non-zero exit, no result and nothing registered."""
    assert run.exit_code == 1, run.output
    for part in parts:
        assert part in run.error
    assert "Traceback" not in run.error
    assert not (run.result / "leaves").exists()
    assert not (run.result / "decision.json").exists()
    assert not list(run.directory.glob("collabopt-output/.work-*"))


def test_regression_decides_on_its_own_metric(collabopt, tmp_path):
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((6,)), layers.Dense(16, activation="relu"), layers.Dense(1)])
    model.save(tmp_path / "regressor.keras")
    shutil.copy(TASKS / "regression_task.py", tmp_path)
    run = collabopt(
        *("run", "--model", tmp_path / "regressor.keras", "--data", "task", "--task", "regression_task:TASK"),
        *("--pipeline", "pruning", "--param", "clusters=8", *QUICK),
        directory=tmp_path,
    )
    assert run.exit_code == 0, run.error
    decision = json.loads((run.result / "decision.json").read_text())
    assert decision["baseline"]["metric"] == "mean_absolute_error"
    assert decision["baseline"]["higher_is_better"] is False
    report = read_leaf_report(run.result / "leaves" / "pcqat")
    worse_by = report.metrics["mean_absolute_error"] - report.metric.baseline
    assert report.metrics["mean_absolute_error_drop"] == pytest.approx(worse_by)
    assert "accuracy" not in run.output

    again = collabopt("gate", directory=tmp_path)
    assert again.exit_code == 0, again.error
    assert json.loads((run.result / "decision.json").read_text()) == decision


def test_keras_3_mobilenet_v2_is_imported_and_quantized(collabopt, tmp_path):
    """Keras 3 is what people have today."""
    import keras

    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3), classes=3, alpha=0.35)
    model.save(tmp_path / "mobilenet.keras")
    data = npz(tmp_path / "data.npz", shape=(96, 96, 3), count=40)
    run = collabopt(
        *("run", "--model", tmp_path / "mobilenet.keras", "--data", data, "--pipeline", "quantization"),
        *("--set", "ptq.representative_samples=2", *QUICK),
    )
    assert run.exit_code == 0, run.error
    assert {path.name for path in (run.result / "leaves").iterdir()} == {"ptq", "qat"}


def test_layers_that_tfmot_does_not_quantize_become_int8_all_the_same(collabopt, tmp_path):
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential(
        [
            layers.Input((16, 2)),
            layers.Rescaling(2.0),
            layers.Conv1D(8, 3, activation="relu", name="along_time"),
            layers.Flatten(),
            layers.Dense(3, activation="softmax", name="classes"),
        ]
    )
    model.save(tmp_path / "conv1d.keras")
    data = npz(tmp_path / "data.npz", shape=(16, 2))
    run = collabopt("run", "--model", tmp_path / "conv1d.keras", "--data", data, "--pipeline", "pruning", *QUICK)
    assert run.exit_code == 0, run.error
    report = read_leaf_report(run.result / "leaves" / "pcqat")
    assert report.deployed.float_operators == []
    assert report.contract.layers == ["along_time", "classes"]
    assert report.contract.holds


@pytest.mark.parametrize(
    ("model", "data", "parts"),
    [
        pytest.param({"spoil": "nan"}, {}, ["NaN", "conv"], id="NaN weights"),
        pytest.param({"spoil": "lambda"}, {}, ["twice", "Lambda", "allow_lambda"], id="a Lambda layer"),
        pytest.param({}, {"labels": np.arange(120) % 4}, ["labels are out of range", "0..3", "3 classes"], id="labels"),
        pytest.param({}, {"shape": (9, 8, 1)}, ["(8, 8, 1)", "(9, 8, 1)"], id="shape mismatch"),
        pytest.param({}, {"labels": np.array(["a"] * 120, object)}, ["'y'", "object"], id="object array"),
        pytest.param({}, {"count": 3}, ["split is empty"], id="empty split"),
    ],
)
def test_bad_models_and_data_end_in_one_clear_message(collabopt, tmp_path, model, data, parts):
    run = collabopt(
        *("run", "--pipeline", "quantization", "--model", build(tmp_path / "model.keras", **model)),
        *("--data", npz(tmp_path / "data.npz", **data)),
    )
    assert_refused(run, *parts)


def test_a_corrupt_model_file_ends_in_one_clear_message(collabopt, tmp_path):
    broken = tmp_path / "model.keras"
    broken.write_bytes(build(tmp_path / "whole.keras").read_bytes()[:5000])
    run = collabopt("run", "--pipeline", "quantization", "--model", broken, "--data", npz(tmp_path / "data.npz"))
    assert_refused(run, "model.keras")
