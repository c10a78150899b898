from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras

from collabopt.components.engine.datasets.store import DatasetSpec
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.checks import check_fits, check_model

layers = tf_keras.layers


def good_model() -> Any:
    image = layers.Input((8, 8, 1))
    tensor = layers.BatchNormalization(name="bn")(layers.Conv2D(2, 3, name="conv")(image))
    return tf_keras.Model(image, layers.Dense(3, name="classes")(layers.Flatten()(tensor)))


def with_weight(layer: str, value: float) -> Any:
    model = good_model()
    weights = model.get_layer(layer).get_weights()
    weights[-1][0] = value
    model.get_layer(layer).set_weights(weights)
    return model


def with_input_type(dtype: str) -> Any:
    image = layers.Input((8, 8, 1), dtype=dtype)
    return tf_keras.Model(image, layers.Dense(3)(layers.Rescaling(1 / 255)(image)))


def mixed_precision() -> Any:
    image = layers.Input((8,))
    return tf_keras.Model(image, layers.Dense(3, name="half", dtype="mixed_float16")(image))


def float64() -> Any:
    image = layers.Input((8,))
    return tf_keras.Model(image, layers.Dense(3, name="double", dtype="float64")(image))


def two_outputs() -> Any:
    image = layers.Input((8,))
    return tf_keras.Model(image, [layers.Dense(3)(image), layers.Dense(2)(image)])


def two_inputs() -> Any:
    first, second = layers.Input((8,)), layers.Input((8,))
    return tf_keras.Model([first, second], layers.Dense(3)(layers.Add()([first, second])))


def nothing_to_compress() -> Any:
    image = layers.Input((8, 8, 1))
    return tf_keras.Model(image, layers.GlobalAveragePooling2D()(layers.BatchNormalization()(image)))


def with_conv3d() -> Any:
    video = layers.Input((4, 8, 8, 1))
    return tf_keras.Model(video, layers.Dense(3)(layers.Flatten()(layers.Conv3D(2, 3, name="in_time")(video))))


def recurrent() -> Any:
    sound = layers.Input((8, 4))
    return tf_keras.Model(sound, layers.Dense(3)(layers.Bidirectional(layers.GRU(4, name="memory"))(sound)))


def with_lambda() -> Any:
    image = layers.Input((8,))
    return tf_keras.Model(image, layers.Lambda(lambda tensor: tensor * 2.0, name="code")(layers.Dense(3)(image)))


def shared_batch_normalization() -> Any:
    image = layers.Input((8, 8, 1))
    normalization = layers.BatchNormalization(name="bn")
    tensor = normalization(layers.Conv2D(2, 3, padding="same")(image))
    tensor = normalization(layers.Conv2D(2, 3, padding="same")(tensor))
    return tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(tensor)))


def hidden_in_a_wrapper() -> Any:
    image = layers.Input((4, 8))
    model = tf_keras.Model(image, layers.TimeDistributed(layers.Dense(3, name="inner"), name="outer")(image))
    model.set_weights([np.full((8, 3), np.nan), np.zeros(3)])
    return model


def subclassed() -> Any:
    class Subclassed(tf_keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    return Subclassed(name="mine")


@pytest.mark.parametrize("value", [0.0, 1e30])
def test_good_model_is_taken(value: float) -> None:
    check_model(with_weight("classes", value))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: with_weight("classes", np.nan), "'classes' has NaN or infinite weights: 1 of 3"),
        (lambda: with_weight("conv", np.inf), "'conv' has NaN or infinite weights"),
        (lambda: with_weight("bn", -np.inf), "'bn' has NaN or infinite weights"),
        (hidden_in_a_wrapper, "NaN or infinite weights: 24 of 24"),
        (mixed_precision, "'half' computes or stores weights in float16"),
        (float64, "'double' computes or stores weights in float64"),
        (lambda: with_input_type("uint8"), "uint8 inputs"),
        (two_outputs, "2 outputs"),
        (two_inputs, "2 inputs"),
        (with_conv3d, "'in_time' is a Conv3D, for which TensorFlow Lite has no int8 kernel"),
        (recurrent, "is a GRU; recurrent layers are not supported"),
        (nothing_to_compress, "nothing to compress"),
        (with_lambda, "'code' is a Lambda"),
        (shared_batch_normalization, "'bn' is applied 2 times"),
        (subclassed, "'mine' .*not a graph of layers"),
    ],
)
def test_bad_model_is_refused_with_the_reason(make: Callable[[], Any], message: str) -> None:
    with pytest.raises(CollaboptError, match=message) as caught:
        check_model(make())
    assert caught.value.todo


def test_lambda_is_taken_when_it_is_allowed() -> None:
    check_model(with_lambda(), allow_lambda=True)


def spec_of(shape: tuple[int, ...]) -> DatasetSpec:
    return DatasetSpec(
        source="images.npz",
        feature_shape=shape,
        feature_dtype="uint8",
        label_shape=(),
        label_dtype="int64",
        scale=1.0,
        offset=0.0,
        seed=0,
        sizes={"train": 1},
        digest="",
    )


def model_of(shape: tuple[int | None, ...]) -> Any:
    image = layers.Input(shape)
    return tf_keras.Model(image, layers.Activation("relu")(image))


@pytest.mark.parametrize("shape", [(8, 8, 1), (None, None, 1), (None, 8, 1)])
def test_fitting_data_are_taken(shape: tuple[int | None, ...]) -> None:
    check_fits(model_of(shape), spec_of((8, 8, 1)))


@pytest.mark.parametrize("shape", [(8, 8, 3), (8, 9, 1), (64,), (None, None, 3), (8, 8), (8, 8, 1, 1)])
def test_mismatch_shows_both_shapes(shape: tuple[int | None, ...]) -> None:
    with pytest.raises(CollaboptError) as caught:
        check_fits(model_of(shape), spec_of((8, 8, 1)))
    assert f"inputs of shape {shape}," in caught.value.what
    assert "shape (8, 8, 1) a sample" in caught.value.what
