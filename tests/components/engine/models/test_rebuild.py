import os

os.environ.setdefault("TF_USE_LEGACY_KERAS", "1")

from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tf_keras

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models import rebuild as rebuild_module
from collabopt.components.engine.models.load import load_model
from collabopt.components.engine.models.rebuild import TOLERANCE, rebuild

layers = keras.layers


@keras.saving.register_keras_serializable("collabopt_tests")
class Scaling(layers.Layer):
    def call(self, inputs: Any) -> Any:
        return inputs * 3.0


def sequential() -> Any:
    return keras.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, padding="same", use_bias=False, kernel_regularizer="l2"),
            layers.BatchNormalization(epsilon=1e-5),
            layers.LeakyReLU(negative_slope=0.2),
            layers.DepthwiseConv2D(3, strides=2, padding="same", activation="silu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.3),
            layers.Flatten(),
            layers.Dense(3, activation="softmax"),
        ]
    )


def multi_branch() -> Any:
    image = layers.Input((8, 8, 1))
    stem = layers.Conv2D(4, 3, padding="same", activation="relu")(image)
    left = layers.SeparableConv2D(4, 3, padding="same")(stem)
    right = layers.AveragePooling2D(2, padding="same")(stem)
    right = layers.UpSampling2D(2)(right)
    merged = layers.Concatenate()([layers.Add()([stem, left]), layers.Multiply()([left, right])])
    return keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(merged)))


def shared_layer() -> Any:
    image = layers.Input((8, 8, 1))
    convolution = layers.Conv2D(1, 3, padding="same", name="shared")
    first = convolution(image)
    second = convolution(layers.ReLU()(first))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(layers.Add()([first, second]))))


def nested() -> Any:
    """A Functional and a Sequential model inside, one of them applied twice, names that clash."""
    inner_image = layers.Input((8, 8, 4))
    inner = keras.Model(inner_image, layers.Conv2D(4, 3, padding="same", name="conv")(inner_image), name="inner")
    head = keras.Sequential(
        [layers.Input((8, 8, 4)), layers.Conv2D(2, 3, name="conv"), layers.Flatten(), layers.Dense(3)], name="head"
    )
    image = layers.Input((8, 8, 1))
    tensor = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    return keras.Model(image, head(layers.Add()([inner(inner(tensor)), tensor])))


def two_in_two_out() -> Any:
    inner_first, inner_second = layers.Input((4,)), layers.Input((4,))
    inner = keras.Model(
        [inner_first, inner_second],
        [layers.Subtract()([inner_first, inner_second]), layers.Dense(2)(inner_second)],
        name="inner",
    )
    first, second = layers.Input((4,)), layers.Input((4,))
    difference, projected = inner([second, first])
    return keras.Model([first, second], [projected, difference])


def operators() -> Any:
    image = layers.Input((8, 8, 1))
    tensor = layers.Conv2D(1, 3, padding="same")(image)
    tensor = (1.0 - tensor * 2.0 + image) / 4.0 + tensor
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(tensor)))


def composed_activations() -> Any:
    image = layers.Input((8, 8, 1))
    tensor = image
    for name in ("hard_sigmoid", "hard_swish", "relu6", "gelu", "tanh"):
        tensor = layers.Activation(name)(layers.Conv2D(4, 3, padding="same")(tensor))
    return keras.Model(image, layers.Dense(3)(layers.Flatten()(tensor)))


def adapted_normalization() -> Any:
    normalization = layers.Normalization(axis=-1)
    normalization.adapt(np.random.default_rng(0).normal(5.0, 3.0, (20, 8, 8, 1)))
    return keras.Sequential([layers.Input((8, 8, 1)), normalization, layers.Flatten(), layers.Dense(3)])


def recurrent() -> Any:
    return keras.Sequential(
        [
            layers.Input((8, 3)),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(4)),
            layers.GRU(4),
            layers.Dense(3),
        ]
    )


def shaken(model: Any) -> Any:
    """Gives every weight another value than its initial one, so that a weight left uncopied shows."""
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            shaken(layer)
        elif not isinstance(layer, layers.Normalization):
            layer.set_weights([generator.uniform(0.1, 0.5, weight.shape) for weight in layer.get_weights()])
    return model


def outputs(model: Any, inputs: list[np.ndarray]) -> list[np.ndarray]:
    found = model(inputs[0] if len(inputs) == 1 else inputs, training=False)
    return [np.asarray(output) for output in (found if isinstance(found, (list, tuple)) else [found])]


def assert_equal_predictions(original: Any, rebuilt: Any) -> None:
    generator = np.random.default_rng(1)
    for scale in (1.0, 10.0):
        inputs = [(scale * generator.random((3, *item.shape[1:]))).astype(np.float32) for item in original.inputs]
        for expected, actual in zip(outputs(original, inputs), outputs(rebuilt, inputs), strict=True):
            np.testing.assert_allclose(actual, expected, atol=TOLERANCE)


@pytest.mark.parametrize(
    "make",
    [
        *(sequential, multi_branch, shared_layer, nested, two_in_two_out, operators, composed_activations),
        *(adapted_normalization, recurrent),
    ],
)
def test_saved_keras_3_model_becomes_tf_keras(make: Callable[[], Any], tmp_path: Path) -> None:
    model = shaken(make())
    model.save(tmp_path / "model.keras")

    loaded = load_model(str(tmp_path / "model.keras"))

    assert isinstance(loaded, tf_keras.Model)
    assert not any(isinstance(layer, tf_keras.Model) for layer in loaded.layers)
    assert_equal_predictions(model, loaded)


def test_keras_3_h5_file_becomes_tf_keras(tmp_path: Path) -> None:
    model = shaken(sequential())
    model.save(tmp_path / "model.h5")

    loaded = load_model(str(tmp_path / "model.h5"))

    assert isinstance(loaded, tf_keras.Model)
    assert_equal_predictions(model, loaded)


def test_mobilenet_v2() -> None:
    model = keras.applications.MobileNetV2(weights=None, input_shape=(96, 96, 3))
    generator = np.random.default_rng(0)
    for layer in model.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.set_weights([generator.uniform(0.5, 1.5, weight.shape) for weight in layer.get_weights()])

    rebuilt = rebuild(model)

    assert [layer.name for layer in rebuilt.layers if layer.weights] == [
        layer.name for layer in model.layers if layer.weights
    ]
    images = generator.random((2, 96, 96, 3)).astype(np.float32)
    np.testing.assert_allclose(outputs(rebuilt, [images])[0], outputs(model, [images])[0], atol=TOLERANCE)


def test_shared_layer_stays_one_layer() -> None:
    rebuilt = rebuild(shared_layer())
    assert [layer.name for layer in rebuilt.layers].count("shared") == 1
    assert rebuilt.count_params() == shared_layer().count_params()


def test_names_are_prefixed_only_where_they_clash() -> None:
    rebuilt = rebuild(nested())
    assert {"conv", "inner_conv", "head_conv"} <= {layer.name for layer in rebuilt.layers}
    assert rebuilt.count_params() == nested().count_params()


def test_options_and_regularizers_are_kept() -> None:
    rebuilt = rebuild(sequential())
    convolution, normalization = rebuilt.layers[1], rebuilt.layers[2]
    assert convolution.kernel_regularizer is not None
    assert not convolution.use_bias
    assert normalization.epsilon == pytest.approx(1e-5)


def test_open_height_and_width_stay_open() -> None:
    image = layers.Input((None, None, 1))
    rebuilt = rebuild(keras.Model(image, layers.Conv2D(2, 3)(image)))
    assert rebuilt.input_shape == (None, None, None, 1)


def test_registered_custom_layer_is_named(tmp_path: Path) -> None:
    image = layers.Input((8, 8, 1))
    keras.Model(image, Scaling(name="my_scaling")(image)).save(tmp_path / "model.keras")
    with pytest.raises(CollaboptError, match=r"my_scaling"):
        load_model(str(tmp_path / "model.keras"))


def test_layer_that_tf_keras_lacks_is_named(tmp_path: Path) -> None:
    image = layers.Input((8,))
    keras.Model(image, layers.RMSNormalization(name="rms")(layers.Dense(3)(image))).save(tmp_path / "model.keras")
    with pytest.raises(CollaboptError, match=r"'rms' \(RMSNormalization\)"):
        load_model(str(tmp_path / "model.keras"))


def test_operation_that_is_no_layer_is_named(tmp_path: Path) -> None:
    image = layers.Input((8,))
    tensor = keras.ops.cumsum(layers.Dense(3)(image), axis=-1)
    keras.Model(image, tensor).save(tmp_path / "model.keras")
    with pytest.raises(CollaboptError, match=r"'cumsum\w*' \(Cumsum, an operation\)"):
        load_model(str(tmp_path / "model.keras"))


def test_activation_that_tf_keras_lacks_is_named() -> None:
    image = layers.Input((8,))
    with pytest.raises(CollaboptError, match="layer 'gated' has the activation hard_sigmoid"):
        rebuild(keras.Model(image, layers.Dense(3, activation="hard_sigmoid", name="gated")(image)))


def test_option_that_tf_keras_lacks_is_named() -> None:
    image = layers.Input((8,))
    with pytest.raises(CollaboptError, match=r"layer 'factored' \(Embedding\) sets lora_rank=2"):
        rebuild(keras.Model(image, layers.Embedding(10, 4, lora_rank=2, name="factored")(image)))


def test_mixed_precision_is_refused_with_its_layer() -> None:
    image = layers.Input((8,))
    with pytest.raises(CollaboptError, match="layer 'half' has the dtype policy mixed_float16"):
        rebuild(keras.Model(image, layers.Dense(3, dtype="mixed_float16", name="half")(image)))


def test_lambda_of_keras_3_is_refused(tmp_path: Path) -> None:
    image = layers.Input((8,))
    model = keras.Model(image, layers.Lambda(lambda tensor: tensor * 2.0, name="code")(layers.Dense(3)(image)))
    model.save(tmp_path / "model.keras")
    with pytest.raises(CollaboptError, match="'code' is a Lambda"):
        load_model(str(tmp_path / "model.keras"))
    assert_equal_predictions(model, load_model(str(tmp_path / "model.keras"), allow_lambda=True))


def test_first_layer_that_differs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    translate = rebuild_module.translate

    def wrong_slope(layer: Any, name: str) -> Any:
        counterpart = translate(layer, name)
        if name == "leaky":
            counterpart.alpha = 0.5
        return counterpart

    monkeypatch.setattr(rebuild_module, "translate", wrong_slope)
    image = layers.Input((8,))
    tensor = layers.Dense(8, name="first")(image)
    tensor = layers.LeakyReLU(negative_slope=0.1, name="leaky")(tensor)
    model = keras.Model(image, layers.Dense(3, name="last")(tensor))
    with pytest.raises(CollaboptError, match="layer 'leaky'") as caught:
        rebuild(model)
    assert "'first'" not in str(caught.value)


def test_subclassed_model_inside_is_named() -> None:
    class Subclassed(keras.Model):
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.dense = layers.Dense(3)

        def call(self, inputs: Any) -> Any:
            return self.dense(inputs)

    image = layers.Input((8,))
    with pytest.raises(CollaboptError, match=r"'inner' .*not a graph of layers"):
        rebuild(keras.Model(image, Subclassed(name="inner")(image)))
