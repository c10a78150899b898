"""A small net to compress."""

import pytest

from collabopt.components.engine.settings import TrainingSettings
from collabopt.components.engine.training.classification import TASK
from collabopt.components.engine.training.fine_tune import fine_tune


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
