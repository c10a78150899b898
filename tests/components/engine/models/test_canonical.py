from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tf_keras

from collabopt.components.engine.models.canonical import canonical_form

layers = tf_keras.layers


def shaken(model: Any, seed: int = 0) -> Any:
    """Weights of both signs, gammas among them; variances stay positive."""
    generator = np.random.default_rng(seed)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.name else -1.0
        weight.assign(generator.uniform(low, 1.0, weight.shape))
    return model


def inputs_for(model: Any) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype(np.float32)


def assert_equal_predictions(rewritten: Any, model: Any) -> None:
    inputs = inputs_for(model)
    expected = model(inputs).numpy()
    np.testing.assert_allclose(rewritten(inputs).numpy(), expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def chain_of(shape: tuple[int, ...], *chain: Any) -> Any:
    return shaken(tf_keras.Sequential([layers.Input(shape), *chain]))


def gammas(model: Any) -> list[np.ndarray]:
    return [
        layer.gamma.numpy() for layer in model.layers if isinstance(layer, layers.BatchNormalization) and layer.scale
    ]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "same", "strides": 2},
        {"dilation_rate": 2, "activation": "relu"},
        {"depth_multiplier": 3, "use_bias": False},
    ],
)
@pytest.mark.parametrize(("kind", "shape"), [("SeparableConv1D", (12, 4)), ("SeparableConv2D", (9, 12, 4))])
def test_separable_convolution_becomes_two_layers(kind: str, shape: tuple[int, ...], options: dict[str, Any]) -> None:
    model = chain_of(shape, getattr(layers, kind)(5, 3, name="separable", **options), layers.ReLU())
    rewritten = canonical_form(model)
    rank = kind[-2:]
    assert [type(layer).__name__ for layer in rewritten.layers if layer.weights] == [
        f"DepthwiseConv{rank}",
        f"Conv{rank}",
    ]
    assert {"separable_depthwise", "separable_pointwise"} < {layer.name for layer in rewritten.layers}
    assert rewritten.count_params() == model.count_params()
    assert_equal_predictions(rewritten, model)


@pytest.mark.parametrize("options", [{}, {"dilation_rate": 3}, {"strides": 2}])
def test_causal_separable_convolution_keeps_to_the_past(options: dict[str, int]) -> None:
    model = chain_of((12, 4), layers.SeparableConv1D(5, 3, padding="causal", **options))
    rewritten = canonical_form(model)
    assert rewritten.output_shape == model.output_shape
    assert_equal_predictions(rewritten, model)


def test_options_without_effect_on_predictions_are_carried_over() -> None:
    regularizers, constraints = tf_keras.regularizers, tf_keras.constraints
    separable = layers.SeparableConv2D(
        5,
        3,
        trainable=False,
        name="separable",
        depthwise_regularizer=regularizers.L1(0.1),
        pointwise_regularizer=regularizers.L2(0.2),
        bias_regularizer=regularizers.L1(0.3),
        activity_regularizer=regularizers.L2(0.4),
        depthwise_constraint=constraints.MaxNorm(1),
        pointwise_constraint=constraints.MaxNorm(2),
        bias_constraint=constraints.MaxNorm(3),
    )
    rewritten = canonical_form(chain_of((8, 8, 2), separable))
    depthwise, pointwise = (rewritten.get_layer(f"separable_{half}") for half in ("depthwise", "pointwise"))
    assert not rewritten.trainable_weights
    assert depthwise.depthwise_regularizer.l1 == pytest.approx(0.1)
    assert depthwise.activity_regularizer is None
    assert pointwise.kernel_regularizer.l2 == pytest.approx(0.2)
    assert pointwise.bias_regularizer.l1 == pytest.approx(0.3)
    assert pointwise.activity_regularizer.l2 == pytest.approx(0.4)
    limits = (depthwise.depthwise_constraint, pointwise.kernel_constraint, pointwise.bias_constraint)
    assert [limit.max_value for limit in limits] == [1, 2, 3]


def test_channels_first_is_carried_over() -> None:
    rewritten = canonical_form(chain_of((2, 8, 9), layers.SeparableConv2D(5, 3, data_format="channels_first")))
    assert rewritten.output_shape == (None, 5, 6, 7)


def shared_separable() -> Any:
    image = layers.Input((8, 8, 4))
    separable = layers.SeparableConv2D(4, 3, padding="same", name="shared")
    return shaken(tf_keras.Model(image, layers.Add()([separable(separable(image)), image])))


def test_shared_separable_convolution_stays_shared() -> None:
    model = shared_separable()
    rewritten = canonical_form(model)
    for half in ("depthwise", "pointwise"):
        assert len(rewritten.get_layer(f"shared_{half}").inbound_nodes) == 2
    assert rewritten.count_params() == model.count_params()
    assert_equal_predictions(rewritten, model)


def test_names_of_the_two_layers_do_not_clash() -> None:
    model = chain_of(
        (8, 8, 4),
        layers.Conv2D(4, 1, name="block_depthwise"),
        layers.SeparableConv2D(4, 3, name="block"),
        layers.Conv2D(4, 1, name="block_pointwise"),
    )
    rewritten = canonical_form(model)
    names = [layer.name for layer in rewritten.layers if layer.weights]
    assert names == ["block_depthwise", "block_depthwise_1", "block_pointwise_1", "block_pointwise"]
    assert_equal_predictions(rewritten, model)


CONVOLUTIONS: dict[str, tuple[tuple[int, ...], Callable[..., Any]]] = {
    "Conv2D": ((8, 8, 3), lambda **options: layers.Conv2D(6, 3, name="conv", **options)),
    "grouped Conv2D": ((8, 8, 4), lambda **options: layers.Conv2D(6, 3, groups=2, name="conv", **options)),
    "Conv2DTranspose": ((8, 8, 3), lambda **options: layers.Conv2DTranspose(6, 3, strides=2, name="conv", **options)),
    "DepthwiseConv2D": (
        (8, 8, 3),
        lambda **options: layers.DepthwiseConv2D(3, depth_multiplier=2, name="conv", **options),
    ),
    "Conv1D": ((8, 3), lambda **options: layers.Conv1D(6, 3, name="conv", **options)),
    "Conv1DTranspose": ((8, 3), lambda **options: layers.Conv1DTranspose(6, 3, strides=2, name="conv", **options)),
    "DepthwiseConv1D": ((8, 3), lambda **options: layers.DepthwiseConv1D(3, name="conv", **options)),
    "Dense": ((8,), lambda **options: layers.Dense(6, name="conv", **options)),
    "Dense on a sequence": ((8, 3), lambda **options: layers.Dense(6, name="conv", **options)),
}


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("center", [True, False])
@pytest.mark.parametrize("kind", CONVOLUTIONS)
def test_folded_gamma_becomes_positive(kind: str, use_bias: bool, center: bool) -> None:
    shape, convolution = CONVOLUTIONS[kind]
    model = chain_of(
        shape, convolution(use_bias=use_bias), layers.BatchNormalization(center=center, name="bn"), layers.ReLU()
    )
    before = [weight.copy() for weight in model.get_weights()]
    rewritten = canonical_form(model)
    assert (gammas(model)[0] < 0).any()
    np.testing.assert_array_equal(gammas(rewritten)[0], np.abs(gammas(model)[0]))
    assert_equal_predictions(rewritten, model)
    for kept, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, kept)


def test_training_statistics_flip_too() -> None:
    model = chain_of((8, 8, 3), layers.Conv2D(6, 3), layers.BatchNormalization())
    rewritten = canonical_form(model)
    inputs = inputs_for(model)
    np.testing.assert_allclose(
        rewritten(inputs, training=True).numpy(), model(inputs, training=True).numpy(), rtol=1e-4, atol=1e-5
    )


def test_zeros_of_a_pruned_kernel_stay_plain_zeros() -> None:
    model = chain_of((8, 8, 3), layers.Conv2D(6, 3, use_bias=False, name="conv"), layers.BatchNormalization())
    kernel = model.get_layer("conv").kernel
    kernel.assign(np.where(np.abs(kernel.numpy()) < 0.5, 0, kernel.numpy()))
    rewritten = canonical_form(model).get_layer("conv").kernel.numpy()
    np.testing.assert_array_equal(np.signbit(rewritten) & (rewritten == 0), False)


def test_separable_convolution_before_a_negative_gamma() -> None:
    model = chain_of((8, 8, 3), layers.SeparableConv2D(6, 3, use_bias=False), layers.BatchNormalization())
    rewritten = canonical_form(model)
    assert (gammas(rewritten)[0] > 0).all()
    assert_equal_predictions(rewritten, model)


def branches() -> Any:
    """Two branches of convolution and BatchNormalization, and a BatchNormalization of their sum."""
    image = layers.Input((8, 8, 3))
    branches = []
    for number in (1, 2):
        tensor = layers.Conv2D(6, 3, padding="same", name=f"conv{number}")(image)
        branches.append(layers.BatchNormalization(name=f"bn{number}")(tensor))
    tensor = layers.BatchNormalization(name="bn_of_sum")(layers.Add()(branches))
    return shaken(tf_keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(tensor))))


def test_batch_normalization_in_branches() -> None:
    model = branches()
    rewritten = canonical_form(model)
    assert all((rewritten.get_layer(name).gamma.numpy() > 0).all() for name in ("bn1", "bn2"))
    np.testing.assert_array_equal(
        rewritten.get_layer("bn_of_sum").gamma.numpy(), model.get_layer("bn_of_sum").gamma.numpy()
    )
    assert_equal_predictions(rewritten, model)


def convolution_read_twice() -> Any:
    image = layers.Input((8, 8, 3))
    tensor = layers.Conv2D(6, 3)(image)
    return shaken(tf_keras.Model(image, layers.Add()([layers.BatchNormalization()(tensor), tensor])))


def shared_convolution() -> Any:
    image = layers.Input((8, 8, 3))
    convolution = layers.Conv2D(3, 3, padding="same")
    return shaken(tf_keras.Model(image, convolution(layers.BatchNormalization()(convolution(image)))))


def over_another_axis() -> Any:
    return chain_of((8, 8, 3), layers.Conv2D(6, 3), layers.BatchNormalization(axis=1))


@pytest.mark.parametrize(
    "model",
    [
        pytest.param(convolution_read_twice, id="the convolution is read twice"),
        pytest.param(shared_convolution, id="the convolution is shared"),
        pytest.param(over_another_axis, id="normalized over another axis"),
        pytest.param(
            lambda: chain_of((8, 8, 3), layers.Conv2D(6, 3, activation="relu"), layers.BatchNormalization()),
            id="an activation lies between",
        ),
        pytest.param(lambda: chain_of((8, 8, 3), layers.BatchNormalization(), layers.Conv2D(6, 3)), id="comes first"),
        pytest.param(
            lambda: chain_of((8, 8, 3), layers.Conv2D(6, 3), layers.BatchNormalization(scale=False)), id="no gamma"
        ),
        pytest.param(
            lambda: chain_of((8, 8, 3), layers.Conv2D(6, 3, kernel_constraint="NonNeg"), layers.BatchNormalization()),
            id="the kernel must stay positive",
        ),
        pytest.param(
            lambda: chain_of((6, 3), layers.SeparableConv1D(2, 3, padding="causal", data_format="channels_first")),
            id="causal with channels first",
        ),
    ],
)
def test_what_needs_nothing_is_returned_as_it_is(model: Callable[[], Any]) -> None:
    built = model()
    assert canonical_form(built) is built


def test_training_cannot_turn_a_folded_gamma_negative() -> None:
    """One that folds into nothing stays free to: nothing is multiplied by it."""
    image = layers.Input((8, 8, 3))
    tensor = layers.BatchNormalization(name="folded")(layers.Conv2D(6, 3)(image))
    model = canonical_form(tf_keras.Model(image, layers.BatchNormalization(name="free")(layers.ReLU()(tensor))))
    loaded = type(model).from_config(model.get_config())
    gammas_of_both = [loaded.get_layer(name).gamma for name in ("folded", "free")]
    downward = [(tf_keras.backend.ones_like(gamma), gamma) for gamma in gammas_of_both]
    tf_keras.optimizers.SGD(3.0).apply_gradients(downward)
    folded, free = (gamma.numpy() for gamma in gammas_of_both)
    np.testing.assert_array_equal(folded, 0)
    np.testing.assert_array_equal(free, -2)
