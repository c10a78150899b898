import numpy as np
import pytest

from collabopt.components.engine.compression.kernels import compressible_kernels, overall_sparsity
from collabopt.components.engine.compression.pruning import prune, prune_at_once
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import PruningSettings


@pytest.fixture
def pruned(net, data, fit):
    """Prunes the net, with the settings given by name."""

    def run(watch=None, **settings):
        fit.settings = PruningSettings(learning_rate=1e-3, **settings)
        watched = (lambda model, callbacks: fit(model, [*callbacks, watch(model)])) if watch else fit
        return prune(net, fit.settings, data.spec.sizes["train"], watched)

    return run


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"target_sparsity": 0.5}, id="constant, though the run is shorter than the frequency"),
        pytest.param({"target_sparsity": 0.75, "schedule": "polynomial", "frequency_steps": 4}, id="polynomial"),
        pytest.param({"target_sparsity": 0.75, "schedule": "polynomial"}, id="polynomial, frequency beyond the ramp"),
    ],
)
def test_every_pruned_layer_reaches_its_target(pruned, settings):
    model, claims = pruned(epochs=2, **settings)
    kernels = compressible_kernels(model)
    assert set(claims.sparsity) == set(claims.zero_positions) == set(kernels) == {"conv", "pointwise", "dense"}
    for name, kernel in kernels.items():
        zeros = round(kernel.size * settings["target_sparsity"])
        assert np.count_nonzero(kernel == 0) == zeros
        assert claims.sparsity[name] == zeros / kernel.size
    assert overall_sparsity(model) == pytest.approx(settings["target_sparsity"], abs=0.01)


def test_sparsity_follows_the_schedule_during_training(pruned):
    import tf_keras

    shares = []

    def watch(model):
        def look(batch, logs):
            shares.append(float(np.mean(model.get_layer("dense").imposed_kernel().numpy() == 0)))

        return tf_keras.callbacks.LambdaCallback(on_train_batch_end=look)

    pruned(watch, epochs=2, target_sparsity=0.8, initial_sparsity=0.2, schedule="polynomial", frequency_steps=2)
    assert shares == sorted(shares)
    assert shares[0] == pytest.approx(0.2, abs=0.01)
    assert shares[1] == shares[0]
    assert 0.2 < shares[3] < 0.8
    assert shares[7:] == pytest.approx([0.8] * 5, abs=0.01)


def test_the_largest_weights_are_those_that_stay(pruned, net):
    before = {name: np.abs(kernel) for name, kernel in compressible_kernels(net).items()}
    model, _ = pruned(epochs=1, target_sparsity=0.5)
    for name, kernel in compressible_kernels(model).items():
        assert before[name][kernel == 0].max() <= before[name][kernel != 0].min()


def test_what_is_left_is_trained(pruned, net):
    before = compressible_kernels(net)["dense"]
    model, _ = pruned(epochs=1, target_sparsity=0.5)
    kernel = compressible_kernels(model)["dense"]
    assert np.mean(kernel[kernel != 0] != before[kernel != 0]) > 0.5


def test_equal_weights_are_pruned_to_the_target_too(pruned, net):
    kernel, bias = net.get_layer("dense").get_weights()
    net.get_layer("dense").set_weights([np.full_like(kernel, 0.25), bias])
    _, claims = pruned(epochs=1, target_sparsity=0.5)
    assert claims.sparsity["dense"] == pytest.approx(0.5, abs=1 / kernel.size)


def test_the_smallest_layer_keeps_one_weight(data, fit):
    import tf_keras

    layers = tf_keras.layers
    model = tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(1, 2, name="tiny"), layers.Flatten()])
    model.add(layers.Dense(3, activation="softmax"))
    model, claims = prune(model, PruningSettings(epochs=1, target_sparsity=0.99), data.spec.sizes["train"], fit)
    assert np.count_nonzero(model.get_layer("tiny").kernel.numpy()) == 1
    assert claims.sparsity["tiny"] == 0.75


def test_depthwise_kernels_stay_dense(pruned):
    model, _ = pruned(epochs=1, target_sparsity=0.9)
    assert (model.get_layer("depthwise").depthwise_kernel.numpy() != 0).all()


def test_frozen_layers_are_left_alone(pruned, net):
    net.get_layer("conv").trainable = False
    model, claims = pruned(epochs=1, target_sparsity=0.5)
    assert (model.get_layer("conv").kernel.numpy() != 0).all()
    assert set(claims.sparsity) == {"pointwise", "dense"}


def test_a_model_without_kernels_to_train_is_refused(pruned, net):
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.BatchNormalization()])
    with pytest.raises(CollaboptError, match="no layer that can be pruned"):
        prune(model, PruningSettings(), 10, lambda *_: None)
    net.trainable = False
    with pytest.raises(CollaboptError, match="no layer that can be pruned"):
        pruned(epochs=1)


def test_pruning_at_once_masks_the_smallest_weights_and_changes_nothing_else(net):
    before, others = compressible_kernels(net), net.get_layer("dense").get_weights()[1]
    model, claims = prune_at_once(net, PruningSettings(target_sparsity=0.75))
    assert set(claims.sparsity) == set(claims.zero_positions) == {"conv", "pointwise", "dense"}
    for name, kernel in compressible_kernels(model).items():
        kept = kernel != 0
        assert np.count_nonzero(~kept) == round(kernel.size * 0.75)
        assert (kernel[kept] == before[name][kept]).all()
        assert np.abs(before[name][~kept]).max() <= np.abs(kernel[kept]).min()
    assert (net.get_layer("dense").get_weights()[1] == others).all()
