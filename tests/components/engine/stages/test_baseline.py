"""Which models are accepted as a baseline, and what the others are told."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.store import load_stage_model
from collabopt.components.engine.stages import import_model_stage
from collabopt.components.engine.training.task import DEFAULT_TASK

layers = tf_keras.layers


@pytest.fixture
def accepted(data, tmp_path, monkeypatch):
    """Imports a model from a file, and gives what is stored."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")

    def call(model):
        model.save(tmp_path / "trained.keras")
        output = tmp_path / "baseline"
        import_model_stage(
            source=str(tmp_path / "trained.keras"),
            dataset=str(data.directory),
            output=str(output),
            task=DEFAULT_TASK,
            settings={},
            overrides={},
        )
        return load_stage_model(output)

    return call


def classifier(*body: Any) -> Any:
    return tf_keras.Sequential([layers.Input((8, 8, 1)), *body, layers.Flatten(), layers.Dense(3)])


def without_convolution_or_dense() -> Any:
    image = layers.Input((8, 8, 1))
    tensor = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(image))
    return tf_keras.Model(image, layers.Concatenate()([tensor] * 3))


def two_outputs() -> Any:
    image = layers.Input((8, 8, 1))
    tensor = layers.Flatten()(image)
    return tf_keras.Model(image, [layers.Dense(3)(tensor), layers.Dense(1)(tensor)])


def shared_by_two_paths() -> Any:
    image = layers.Input((8, 8, 1))
    convolution = layers.Conv2D(2, 3, padding="same", activation="relu", name="shared")
    paths = [convolution(image), convolution(layers.MaxPooling2D(2, strides=1, padding="same")(image))]
    return tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Add()(paths))))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        pytest.param(without_convolution_or_dense, "there is nothing to compress", id="no convolution, no Dense"),
        pytest.param(
            lambda: classifier(layers.Conv2D(2, 3, name="half", dtype="float16")), "'half'.*float16", id="float16"
        ),
        pytest.param(
            lambda: classifier(layers.Conv2D(2, 3, name="mixed", dtype="mixed_float16")), "'mixed'.*float16", id="mixed"
        ),
        pytest.param(two_outputs, "the model has 2 outputs", id="two outputs"),
    ],
)
def test_a_model_that_cannot_go_down_the_tree_is_refused(accepted, make: Callable[[], Any], message: str):
    with pytest.raises(CollaboptError, match=message) as refusal:
        accepted(make())
    assert refusal.value.todo


def test_a_layer_shared_by_two_paths_stays_shared(accepted, data):
    model = shared_by_two_paths()
    baseline = accepted(model)
    assert len(baseline.get_layer("shared").inbound_nodes) == 2
    np.testing.assert_array_equal(baseline(data.inputs("test")), model(data.inputs("test")))


def test_the_baseline_is_stored_in_its_canonical_form(accepted, data):
    model = classifier(layers.SeparableConv2D(4, 3, name="separable", use_bias=False), layers.BatchNormalization())
    model.layers[1].gamma.assign([-1.0, 1.0, -2.0, 0.0])
    baseline = accepted(model)
    normalization = next(layer for layer in baseline.layers if isinstance(layer, layers.BatchNormalization))
    np.testing.assert_array_equal(normalization.gamma, [1.0, 1.0, 2.0, 0.0])
    assert {"separable_depthwise", "separable_pointwise"} <= {layer.name for layer in baseline.layers}
    inputs = data.inputs("test")
    np.testing.assert_allclose(baseline(inputs), model(inputs), rtol=1e-5, atol=1e-5)
