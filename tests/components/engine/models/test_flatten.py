from typing import Any

import numpy as np
import pytest
import tensorflow_model_optimization as tfmot
import tf_keras

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.models.flatten import flatten_model, pin_input_shape

layers = tf_keras.layers
IMAGES = np.random.default_rng(0).random((3, 8, 8, 1)).astype(np.float32)


def shaken(model: Any) -> Any:
    generator = np.random.default_rng(0)
    model.set_weights([generator.uniform(0.1, 0.5, weight.shape) for weight in model.get_weights()])
    return model


def nested_model() -> Any:
    """Three levels, a model that is applied twice, names that clash, a TensorFlow operation."""
    core = tf_keras.Sequential(
        [layers.Input((8, 8, 4)), layers.Conv2D(4, 3, padding="same", name="conv"), layers.ReLU(name="relu")],
        name="core",
    )
    block_image = layers.Input((8, 8, 4))
    block_tensor = layers.Conv2D(4, 1, name="conv")(core(core(block_image)))
    block = tf_keras.Model(block_image, layers.Add(name="add")([block_tensor, block_image]), name="block")
    image = layers.Input((8, 8, 1), name="image")
    tensor = layers.Conv2D(4, 3, padding="same", name="conv")(image)
    tensor = block(layers.BatchNormalization(name="bn")(tensor)) + 1.0
    tensor = layers.Dense(3, name="classes")(layers.Flatten(name="flatten")(tensor))
    return shaken(tf_keras.Model(image, tensor, name="whole"))


def test_predictions_and_weights_are_unchanged() -> None:
    model = nested_model()
    flat = flatten_model(model)
    assert not any(isinstance(layer, tf_keras.Model) for layer in flat.layers)
    np.testing.assert_array_equal(flat(IMAGES).numpy(), model(IMAGES).numpy())
    assert flat.count_params() == model.count_params()
    assert flat.name == "whole"


def test_names_stay_unique_and_the_outer_layer_keeps_its_own() -> None:
    model = nested_model()
    flat = flatten_model(model)
    kernels = {layer.name: layer.kernel.shape for layer in flat.layers if hasattr(layer, "kernel")}
    assert kernels == {
        "conv": (3, 3, 1, 4),
        "block_conv": (1, 1, 4, 4),
        "core_conv": (3, 3, 4, 4),
        "classes": (256, 3),
    }
    assert {"bn", "relu", "add", "flatten"} <= {layer.name for layer in flat.layers}


def test_model_applied_twice_keeps_one_copy_of_its_layers() -> None:
    flat = flatten_model(nested_model())
    assert len(flat.get_layer("core_conv").inbound_nodes) == 2


def test_flat_model_is_returned_as_it_is() -> None:
    model = tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Flatten(), layers.Dense(3)])
    assert flatten_model(model) is model


def test_fixed_batch_size_is_freed() -> None:
    image = layers.Input((8, 8, 1), batch_size=1)
    flat = flatten_model(tf_keras.Model(image, layers.Conv2D(2, 3)(image)))
    assert flat.input_shape == (None, 8, 8, 1)
    assert flat(IMAGES).shape == (3, 6, 6, 2)


def test_adapted_normalization_keeps_its_statistics() -> None:
    normalization = layers.Normalization()
    normalization.adapt(IMAGES * 7.0)
    inner = tf_keras.Sequential([layers.Input((8, 8, 1)), normalization, layers.Flatten(), layers.Dense(3)])
    model = tf_keras.Sequential([layers.Input((8, 8, 1)), inner])
    np.testing.assert_array_equal(flatten_model(model)(IMAGES).numpy(), model(IMAGES).numpy())


def test_shared_layers_pass_every_technique_of_tfmot() -> None:
    image = layers.Input((8, 8, 1))
    inner = tf_keras.Sequential([layers.Input((8, 8, 1)), layers.Conv2D(1, 3, padding="same"), layers.ReLU()])
    model = tf_keras.Model(image, layers.Dense(3)(layers.Flatten()(inner(inner(image)))))
    flat = flatten_model(model)
    clusters = {"number_of_clusters": 4, "cluster_centroids_init": tfmot.clustering.keras.CentroidInitialization.LINEAR}
    for compress in (
        tfmot.sparsity.keras.prune_low_magnitude,
        lambda net: tfmot.clustering.keras.cluster_weights(net, **clusters),
        tfmot.quantization.keras.quantize_model,
    ):
        compressed = compress(tf_keras.models.clone_model(flat))
        convolutions = [layer for layer in compressed.layers if "conv" in layer.name]
        assert len(convolutions) == 1
        assert compressed(IMAGES).shape == (3, 3)


def test_subclassed_model_inside_is_named() -> None:
    class Subclassed(tf_keras.Model):
        def call(self, inputs: Any) -> Any:
            return inputs

    image = layers.Input((8, 8, 1))
    with pytest.raises(CollaboptError, match=r"'inner' .*not a graph of layers"):
        flatten_model(tf_keras.Model(image, Subclassed(name="inner")(image)))


def open_model() -> Any:
    image = layers.Input((None, None, 1))
    tensor = layers.Conv2D(4, 3, strides=2, name="conv")(image)
    return shaken(tf_keras.Model(image, layers.Dense(3)(layers.GlobalAveragePooling2D()(tensor))))


def test_open_shape_is_pinned_to_the_data() -> None:
    model = open_model()
    pinned = pin_input_shape(model, (8, 8, 1))
    assert pinned.input_shape == (None, 8, 8, 1)
    np.testing.assert_array_equal(pinned(IMAGES).numpy(), model(IMAGES).numpy())


def test_known_shape_is_left_alone() -> None:
    model = nested_model()
    assert pin_input_shape(model, (8, 8, 1)) is model


def test_shape_that_does_not_work_is_refused_with_both_shapes() -> None:
    with pytest.raises(CollaboptError, match=r"\(None, None, 1\).*\(2, 2, 1\)"):
        pin_input_shape(open_model(), (2, 2, 1))
