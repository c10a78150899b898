"""The packed file: any gzip reader unpacks it, and it comes close to the entropy of sparse, clustered weights."""

import gzip

import numpy as np
import pytest

from collabopt.components.engine.deployed.convert import to_float32, to_int8
from collabopt.components.engine.deployed.inspect import inspect_tflite
from collabopt.components.engine.deployed.packing import deflate, pack
from collabopt.components.engine.errors import CollaboptError


@pytest.fixture(scope="module")
def tflite():
    """Two Dense layers of different palettes, half of each zero."""
    import tf_keras

    random = np.random.default_rng(0)
    model = tf_keras.Sequential([tf_keras.Input((64,)), tf_keras.layers.Dense(64), tf_keras.layers.Dense(48)])
    for number, layer in enumerate(model.layers, start=1):
        kernel, bias = layer.get_weights()
        palette = np.array([0.0] * 7 + list(random.normal(size=7) * number))
        layer.set_weights([random.choice(palette, kernel.shape).astype(np.float32), bias])
    inputs = random.normal(size=(8, 1, 64)).astype(np.float32)
    return to_int8(model, lambda: ([sample] for sample in inputs))


def test_gzip_unpacks_it(tflite):
    assert gzip.decompress(pack(tflite).content) == tflite


def test_the_same_file_packs_to_the_same_bytes(tflite):
    assert pack(tflite).content == pack(bytes(bytearray(tflite))).content


def test_it_is_smaller_than_gzip_can_make_it(tflite):
    assert len(pack(tflite).content) < 0.95 * len(gzip.compress(tflite, 9))


def test_it_is_never_larger_than_gzip_makes_it():
    """Of a file with little in its weights, blocks of their own cost more than they save."""
    import tf_keras

    small = to_float32(tf_keras.Sequential([tf_keras.Input((8,)), tf_keras.layers.Dense(8)]))
    assert len(pack(small).content) <= len(gzip.compress(small, 9))


def test_int8_weights_of_few_values_come_close_to_their_entropy():
    random = np.random.default_rng(0)
    values = random.choice(np.array([0] * 15 + list(range(-7, 8)), np.int8), 50_000)
    _, counts = np.unique(values, return_counts=True)
    bound_bytes = -np.sum(counts * np.log2(counts / counts.sum())) / 8
    packed = deflate(values.tobytes()).shortest
    assert bound_bytes < len(packed) < 1.05 * bound_bytes
    assert len(gzip.compress(values.tobytes(), 9)) > 1.1 * bound_bytes


def test_the_report_carries_both_figures(tflite):
    deployed = inspect_tflite(tflite)
    assert deployed.packed_bytes == len(pack(tflite).content)
    assert deployed.weight_packed_bytes == sum(tensor.packed_bytes for tensor in deployed.weights)
    assert deployed.weight_packed_bytes < deployed.packed_bytes < deployed.gzip_bytes


def test_a_file_that_is_no_model_is_refused():
    with pytest.raises(CollaboptError, match="not a TFLite model"):
        pack(b"nothing of the kind")
