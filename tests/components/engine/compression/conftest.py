"""A small net and a small data set to compress."""

import numpy as np
import pytest

from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset
from collabopt.components.engine.settings import TrainingSettings
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.fine_tune import fine_tune


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Three classes of 8x8 images that differ by the column that is bright."""
    random = np.random.default_rng(0)

    def samples(count):
        labels = random.integers(0, 3, count)
        features = random.uniform(0, 0.3, (count, 8, 8, 1)).astype(np.float32)
        features[np.arange(count), :, labels * 2, 0] += 0.7
        return Samples(features, labels)

    directory = tmp_path_factory.mktemp("data")
    sizes = {"train": 192, "calibration": 32, "validation": 32, "test": 64}
    write_dataset(Splits({name: samples(size) for name, size in sizes.items()}), directory, source="test", seed=0)
    return StoredDataset(directory)


@pytest.fixture
def net():
    """Conv-BN-ReLU, depthwise, pointwise, Dense: every kind of layer that the techniques treat differently."""
    import tf_keras

    layers = tf_keras.layers
    tf_keras.utils.set_random_seed(0)
    inputs = layers.Input((8, 8, 1))
    x = layers.Conv2D(8, 3, use_bias=False, name="conv")(inputs)
    x = layers.BatchNormalization(momentum=0.9)(x)
    x = layers.ReLU()(x)
    x = layers.DepthwiseConv2D(3, name="depthwise")(x)
    x = layers.Conv2D(16, 1, activation="relu", name="pointwise")(x)
    x = layers.Flatten()(x)
    return tf_keras.Model(inputs, layers.Dense(3, activation="softmax", name="dense")(x))


@pytest.fixture
def fit(data, net):
    """Fine-tunes whatever has been wrapped around the net; `fit.settings` may be changed."""

    def run(model, callbacks):
        loss = TASK.loss(net)
        fine_tune(model, data, TASK, run.settings, loss=loss, on_epoch=lambda *_: None, callbacks=callbacks)

    run.settings = TrainingSettings(epochs=1, learning_rate=1e-3)
    return run
