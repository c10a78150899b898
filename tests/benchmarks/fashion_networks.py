"""The networks that the evidence is about: classifiers of Fashion-MNIST for microcontrollers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from architectures import CLASSES, resnet_8

from collabopt.components.engine.models.examples import EXAMPLES, MOMENTUM

SHAPE = (28, 28, 1)


@dataclass(frozen=True)
class Network:
    """A network and how its baseline is trained.

    Attributes:
        build: -> the untrained tf_keras model.
        epochs: Passes over the train split.
        learning_rate: Peak learning rate of Adam; decays to zero along a cosine.
        train_share: Share of the train split that it is trained and compressed with, as its cost allows.
        compression: How many times smaller than the float file a search's leaves are to be.
    """

    build: Callable[[], Any]
    epochs: int
    learning_rate: float
    train_share: float
    compression: float


def train(network: str, data: Any, seed: int, batch_size: int) -> Any:
    """Trains a baseline on the train split; the same seed gives the same weights.

    Args:
        network: One of `NETWORKS`.
        data: `StoredDataset`.
        seed: Seeds initialisation and shuffling.
        batch_size: Samples per step.

    Returns:
        The trained tf_keras model.
    """
    import tf_keras

    from collabopt.components.engine.session import make_deterministic

    make_deterministic(seed)
    chosen = NETWORKS[network]
    model = chosen.build()
    steps = -(-data.spec.sizes["train"] // batch_size) * chosen.epochs
    rate = tf_keras.optimizers.schedules.CosineDecay(chosen.learning_rate, decay_steps=steps)
    model.compile(tf_keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(
        data.batches("train", batch_size, shuffle_seed=seed),
        validation_data=data.batches("validation", 256),
        epochs=chosen.epochs,
        verbose=2,
    )
    return model


def _resnet_8() -> Any:
    return _with_momentum(resnet_8(SHAPE))


def _mobilenet() -> Any:
    """MobileNetV1 of a quarter of the width; it takes no images below 32 pixels, so these get a rim."""
    import tf_keras

    image = tf_keras.Input(SHAPE, name="image")
    padded = tf_keras.layers.ZeroPadding2D(2)(image)
    body = tf_keras.applications.MobileNet(input_tensor=padded, alpha=0.25, weights=None, classes=CLASSES, dropout=0.1)
    return _with_momentum(tf_keras.Model(image, body.output))


def _with_momentum(model: Any) -> Any:
    """Keras's own 0.99 lags behind where an epoch has few hundred steps."""
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            layer.momentum = MOMENTUM
    return model


NETWORKS = {
    "DS-CNN": Network(EXAMPLES["fashion-mnist"].build, epochs=8, learning_rate=2e-3, train_share=0.1, compression=15),
    "ResNet-8": Network(_resnet_8, epochs=8, learning_rate=2e-3, train_share=0.1, compression=20),
    "MobileNetV1-0.25": Network(_mobilenet, epochs=12, learning_rate=2e-3, train_share=0.3, compression=12),
}
