"""Small `.tflite` files of every kind that a footprint has to deal with."""

import numpy as np
import pytest

from collabopt.components.engine.deployed.convert import to_float32, to_int8


@pytest.fixture(scope="session")
def nets():
    """Name -> flatbuffer; all take `[1, 8, 8, 1]` and give `[1, 6]`.

    `int8` runs on an NPU throughout, `float` nowhere, `elu` with one activation on floats. `pruned` is `int8` with most
    of its large Dense kernel zero. In `dead` nothing passes the first activation, which XNNPACK refuses.
    """
    import tf_keras

    tf_keras.backend.clear_session()
    tf_keras.utils.set_random_seed(1)
    samples = np.random.default_rng(2).uniform(0, 1, (16, 1, 8, 8, 1)).astype(np.float32)

    def net(activation="relu"):
        layers = tf_keras.layers
        image = layers.Input((8, 8, 1))
        x = layers.DepthwiseConv2D(3)(layers.Conv2D(4, 3, activation=activation)(image))
        return tf_keras.Model(image, layers.Dense(6)(layers.Dense(64)(layers.Flatten()(x))))

    def int8(model):
        return to_int8(model, lambda: ([sample] for sample in samples))

    plain, pruned, dead = net(), net(), net()
    weights = plain.get_weights()
    plain.set_weights([*weights[:1], weights[1] + 1, *weights[2:]])
    zeros = np.random.default_rng(3).uniform(size=weights[4].shape) < 0.9
    pruned.set_weights([*weights[:1], weights[1] + 1, *weights[2:4], np.where(zeros, 0, weights[4]), *weights[5:]])
    dead.set_weights([-np.abs(weights[0]), *weights[1:]])
    return {
        "int8": int8(plain),
        "float": to_float32(plain),
        "elu": int8(net("elu")),
        "pruned": int8(pruned),
        "dead": int8(dead),
    }
