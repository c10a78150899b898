import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from collabopt.components.engine.datasets.splits import Samples, Splits
from collabopt.components.engine.datasets.store import StoredDataset, write_dataset

# A process of its own: TensorFlow must not be in the process whose gate is said to need none.
_MAKE_MODELS = """
import sys
import numpy as np, tensorflow as tf
directory = sys.argv[1]
x = np.random.default_rng(0).random((64, 6, 5, 2), dtype=np.float32)
for seed in range(3):
    tf.keras.utils.set_random_seed(seed)
    model = tf.keras.Sequential([
        tf.keras.Input((6, 5, 2)),
        tf.keras.layers.Conv2D(3, 3, activation="relu"),
        tf.keras.layers.Flatten(),
        tf.keras.layers.Dense(4, activation=None if seed == 2 else "softmax"),
    ])
    if seed == 2:   # its first activation never fires, so that all that follows is zero: XNNPACK refuses that
        kernel, bias = model.layers[0].get_weights()
        model.layers[0].set_weights([-np.abs(kernel), bias])
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in x)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    open(f"{directory}/{seed}.tflite", "wb").write(converter.convert())
    np.savez(f"{directory}/{seed}.npz", x=x[:7], y=model(x[:7]).numpy())
"""


@dataclass(frozen=True)
class Example:
    """An int8 model, samples `[7, 6, 5, 2]` float32 and what its fp32 original says of them, `[7, 4]`."""

    tflite: Path
    x: np.ndarray
    y: np.ndarray


@pytest.fixture(scope="session")
def examples(tmp_path_factory):
    directory = tmp_path_factory.mktemp("models")
    subprocess.run([sys.executable, "-c", _MAKE_MODELS, str(directory)], check=True, capture_output=True)
    made = []
    for seed in range(3):
        with np.load(directory / f"{seed}.npz") as arrays:
            made.append(Example(directory / f"{seed}.tflite", arrays["x"], arrays["y"]))
    return made


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
