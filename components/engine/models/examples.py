"""The examples' baselines: small networks, trained once on the example's data and kept in a cache."""

import hashlib
import json
import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.progress import emit
from collabopt.components.engine.session import make_deterministic
from collabopt.components.engine.whole_file import written_whole

if TYPE_CHECKING:
    from collabopt.components.engine.datasets.store import StoredDataset

CACHE_VARIABLE = "COLLABOPT_CACHE"
# Raise it with every change to an architecture or to its training: it keys the cache.
ARCHITECTURE_VERSION = 1
PROGRESS_STAGE = "baseline"
# Of the moving statistics; Keras's 0.99 lags behind where an epoch has few dozen steps.
MOMENTUM = 0.9


@dataclass(frozen=True)
class ExampleModel:
    """An example's network and how it is trained.

    Attributes:
        feature_shape: Shape of one sample.
        build: -> the untrained tf_keras model, a classifier of 10 classes.
        epochs: Passes over the train split.
        batch_size: Samples per step.
        learning_rate: Peak learning rate of Adam; decays to zero along a cosine.
    """

    feature_shape: tuple[int, int, int]
    build: Callable[[], Any]
    epochs: int
    batch_size: int
    learning_rate: float


def example_model(name: str, dataset: "StoredDataset", seed: int = 0) -> Any:
    """Gives the trained baseline of an example; trains it if the cache has none.

    Training sees the train split, and shows the validation split's accuracy after every epoch; the same seed gives the
    same weights. The cache lies in `$COLLABOPT_CACHE`, `$XDG_CACHE_HOME/collabopt` or `~/.cache/collabopt`.

    Args:
        name: `digits` or `fashion-mnist`.
        dataset: The example's data.
        seed: Seeds initialisation and shuffling.

    Returns:
        The trained tf_keras model, uncompiled.

    Raises:
        CollaboptError: There is no such example, or the data are not this example's.
    """
    if name not in EXAMPLES:
        raise CollaboptError(
            f"there is no example model '{name}'", where=f"example://{name}", todo=f"examples: {', '.join(EXAMPLES)}"
        )
    example = EXAMPLES[name]
    if dataset.spec.feature_shape != example.feature_shape:
        raise CollaboptError(
            f"example model '{name}' takes data of shape {example.feature_shape}, but these have shape "
            f"{dataset.spec.feature_shape} a sample",
            where=f"example://{name}, data {dataset.spec.source}",
            todo=f"pass the data of example://{name}, or your own model",
        )
    path = _cache_path(name, dataset, seed)
    model = _load_cached(path, example)
    if model is None:
        model = _train(example, dataset, seed)
        _store_cached(model, path)
    return model


def _train(example: ExampleModel, dataset: "StoredDataset", seed: int) -> Any:
    import tf_keras

    make_deterministic(seed)
    model = example.build()
    batches = dataset.batches("train", example.batch_size, shuffle_seed=seed)
    steps = -(-dataset.spec.sizes["train"] // example.batch_size)
    model.compile(
        optimizer=tf_keras.optimizers.Adam(
            tf_keras.optimizers.schedules.CosineDecay(example.learning_rate, decay_steps=steps * example.epochs)
        ),
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )

    def report(epoch: int, logs: dict[str, float]) -> None:
        metrics = {key: float(value) for key, value in logs.items()}
        emit(PROGRESS_STAGE, "epoch", epoch=epoch + 1, epochs=example.epochs, metrics=metrics)

    model.fit(
        batches,
        validation_data=dataset.batches("validation", 256),
        epochs=example.epochs,
        callbacks=[tf_keras.callbacks.LambdaCallback(on_epoch_end=report)],
        verbose=2,
    )
    return _uncompiled(model)


def _uncompiled(model: Any) -> Any:
    import tf_keras

    plain = tf_keras.models.clone_model(model)
    plain.set_weights(model.get_weights())
    return plain


def _cache_path(name: str, dataset: "StoredDataset", seed: int) -> Path:
    if CACHE_VARIABLE in os.environ:
        directory = Path(os.environ[CACHE_VARIABLE])
    else:
        directory = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "collabopt"
    spec = dataset.spec
    key = json.dumps([name, spec.digest, spec.scale, spec.offset, seed, ARCHITECTURE_VERSION])
    return directory / "baselines" / f"{name}-{hashlib.sha256(key.encode()).hexdigest()[:16]}.keras"


def _load_cached(path: Path, example: ExampleModel) -> Any | None:
    """The cached model; None where there is none, or none that reads."""
    import tf_keras

    if not path.is_file():
        return None
    try:
        model = tf_keras.models.load_model(path, compile=False)
    except (ValueError, TypeError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        print(f"{path} does not read and is trained again: {error}")
        return None
    return model if model.input_shape == (None, *example.feature_shape) else None


def _store_cached(model: Any, path: Path) -> None:
    """Keeps a model, of which nobody ever reads half."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as written:
            model.save(written, save_format="keras")
    except OSError as error:
        print(f"the baseline is not kept: {error}")


def _convolution(tensor: Any, filters: int, kernel: int, strides: int, name: str) -> Any:
    from tf_keras import layers

    tensor = layers.Conv2D(filters, kernel, strides=strides, padding="same", use_bias=False, name=name)(tensor)
    tensor = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_bn")(tensor)
    return layers.ReLU(name=f"{name}_relu")(tensor)


def _separable(tensor: Any, filters: int, strides: int, name: str) -> Any:
    """A depthwise-separable block (Howard et al. 2017, https://arxiv.org/abs/1704.04861)."""
    from tf_keras import layers

    tensor = layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False, name=f"{name}_depthwise")(
        tensor
    )
    tensor = layers.BatchNormalization(momentum=MOMENTUM, name=f"{name}_depthwise_bn")(tensor)
    tensor = layers.ReLU(name=f"{name}_depthwise_relu")(tensor)
    return _convolution(tensor, filters, 1, 1, f"{name}_pointwise")


def _digits() -> Any:
    """11 thousand weights for 8x8 grey images."""
    import tf_keras

    image = tf_keras.Input((8, 8, 1), name="image")
    tensor = _convolution(image, 32, 3, 1, "conv")
    tensor = _separable(tensor, 64, 1, "block1")
    tensor = _separable(tensor, 96, 2, "block2")
    tensor = tf_keras.layers.GlobalAveragePooling2D(name="pool")(tensor)
    return tf_keras.Model(image, tf_keras.layers.Dense(10, activation="softmax", name="classes")(tensor), name="digits")


def _fashion_mnist() -> Any:
    """A DS-CNN of 170 thousand weights for 28x28 grey images."""
    import tf_keras

    image = tf_keras.Input((28, 28, 1), name="image")
    tensor = _convolution(image, 32, 3, 2, "conv")
    for number, (filters, strides) in enumerate([(96, 1), (128, 1), (192, 2), (256, 1), (256, 1)], start=1):
        tensor = _separable(tensor, filters, strides, f"block{number}")
    tensor = tf_keras.layers.GlobalAveragePooling2D(name="pool")(tensor)
    classes = tf_keras.layers.Dense(10, activation="softmax", name="classes")(tensor)
    return tf_keras.Model(image, classes, name="fashion_mnist")


EXAMPLES = {
    "digits": ExampleModel((8, 8, 1), _digits, epochs=25, batch_size=32, learning_rate=5e-3),
    "fashion-mnist": ExampleModel((28, 28, 1), _fashion_mnist, epochs=6, batch_size=64, learning_rate=4e-3),
}
