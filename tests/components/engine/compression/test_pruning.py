import pytest

from collabopt.components.engine.compression.kernels import claims_of, overall_sparsity
from collabopt.components.engine.compression.pruning import prune
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import PruningSettings


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({"target_sparsity": 0.5}, id="constant, though the run is shorter than the frequency"),
        pytest.param({"target_sparsity": 0.75, "schedule": "polynomial", "frequency_steps": 4}, id="polynomial"),
        pytest.param({"target_sparsity": 0.75, "schedule": "polynomial"}, id="polynomial, frequency beyond the ramp"),
    ],
)
def test_every_pruned_layer_reaches_its_target(net, data, fit, settings):
    fit.settings = PruningSettings(epochs=2, learning_rate=1e-3, **settings)
    pruned = prune(net, fit.settings, data.spec.sizes["train"], fit)
    sparsity = claims_of(pruned, pruned=True, clustered=False).sparsity
    assert set(sparsity) == {"conv", "pointwise", "dense"}
    for layer, share in sparsity.items():
        assert share == pytest.approx(settings["target_sparsity"], abs=0.02), layer
    assert overall_sparsity(pruned) == pytest.approx(settings["target_sparsity"], abs=0.02)


def test_depthwise_kernels_stay_dense(net, data, fit):
    fit.settings = PruningSettings(epochs=1, target_sparsity=0.9)
    pruned = prune(net, fit.settings, data.spec.sizes["train"], fit)
    assert (pruned.get_layer("depthwise").depthwise_kernel.numpy() != 0).all()


def test_a_model_without_kernels_is_refused():
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((4,)), tf_keras.layers.BatchNormalization()])
    with pytest.raises(CollaboptError, match="no layer that can be pruned"):
        prune(model, PruningSettings(), 10, lambda *_: None)
