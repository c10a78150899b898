"""The networks of the coverage matrix: tf_keras.applications at a reduced input size, and three small ones."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

CLASSES = 10
# Share of negative gammas: trained networks have some.
NEGATIVE_GAMMAS = 0.05
STATISTICS_SAMPLES = 16


@dataclass(frozen=True)
class Architecture:
    """A network of the matrix.

    Attributes:
        input_shape: Shape of one sample.
        build: Input shape -> the network, with random weights.
        scale: Features are uniform in `[0, scale)`; 255 for networks that bring their preprocessing.
    """

    input_shape: tuple[int, ...]
    build: Callable[[tuple[int, ...]], Any]
    scale: float = 1.0


def build(name: str, seed: int) -> Any:
    """Builds a network whose BatchNormalizations are those of a trained one: fitting statistics, uneven gammas."""
    import tf_keras

    architecture = ARCHITECTURES[name]
    tf_keras.utils.set_random_seed(seed)
    model = architecture.build(architecture.input_shape)
    random = np.random.default_rng(seed)
    normalizations = [layer for layer in model.layers if isinstance(layer, tf_keras.layers.BatchNormalization)]
    momenta = [layer.momentum for layer in normalizations]
    for layer in normalizations:
        if layer.scale:
            signs = np.where(random.random(layer.gamma.shape) < NEGATIVE_GAMMAS, -1, 1)
            layer.gamma.assign(random.uniform(0.5, 1.5, layer.gamma.shape) * signs)
        layer.beta.assign(random.normal(0, 0.1, layer.beta.shape))
        layer.momentum = 0.0
    model(features(name, STATISTICS_SAMPLES, random) * architecture.scale, training=True)
    for layer, momentum in zip(normalizations, momenta, strict=True):
        layer.momentum = momentum
    return model


def features(name: str, samples: int, random: np.random.Generator) -> np.ndarray:
    """Random samples, to be multiplied by the architecture's scale."""
    return random.random((samples, *ARCHITECTURES[name].input_shape), np.float32)


def _application(name: str) -> Callable[[tuple[int, ...]], Any]:
    def application(shape: tuple[int, ...]) -> Any:
        import tf_keras

        return getattr(tf_keras.applications, name)(input_shape=shape, weights=None, classes=CLASSES)

    return application


def _ds_cnn(shape: tuple[int, ...]) -> Any:
    """The keyword-spotting network of MLPerf Tiny (https://github.com/mlcommons/tiny), for 49 frames of 10 MFCCs."""
    import tf_keras
    from tf_keras import layers

    image = layers.Input(shape)
    tensor = _normalized(layers.Conv2D(64, (10, 4), strides=2, padding="same")(image))
    tensor = layers.Dropout(0.2)(tensor)
    for _ in range(4):
        tensor = _normalized(layers.DepthwiseConv2D(3, padding="same")(tensor))
        tensor = _normalized(layers.Conv2D(64, 1, padding="same")(tensor))
    tensor = layers.Flatten()(layers.AveragePooling2D(tensor.shape[1:3])(layers.Dropout(0.4)(tensor)))
    return tf_keras.Model(image, layers.Dense(CLASSES, activation="softmax")(tensor))


def resnet_8(shape: tuple[int, ...]) -> Any:
    """The image classifier of MLPerf Tiny (https://github.com/mlcommons/tiny)."""
    import tf_keras
    from tf_keras import layers

    image = layers.Input(shape)
    tensor = _normalized(layers.Conv2D(16, 3, padding="same")(image))
    for filters, strides in ((16, 1), (32, 2), (64, 2)):
        residual = _normalized(layers.Conv2D(filters, 3, strides=strides, padding="same")(tensor))
        residual = layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same")(residual))
        if strides > 1:
            tensor = layers.Conv2D(filters, 1, strides=strides, padding="same")(tensor)
        tensor = layers.Activation("relu")(layers.Add()([tensor, residual]))
    tensor = layers.Flatten()(layers.AveragePooling2D(tensor.shape[1:3])(tensor))
    return tf_keras.Model(image, layers.Dense(CLASSES, activation="softmax")(tensor))


def _mlp(shape: tuple[int, ...]) -> Any:
    """LeNet-300-100 (LeCun et al. 1998)."""
    import tf_keras
    from tf_keras import layers

    hidden = [layers.Dense(units, activation="relu") for units in (300, 100)]
    classes = layers.Dense(CLASSES, activation="softmax")
    return tf_keras.Sequential([layers.Input(shape), layers.Flatten(), *hidden, classes])


def _normalized(tensor: Any) -> Any:
    from tf_keras import layers

    return layers.Activation("relu")(layers.BatchNormalization()(tensor))


ARCHITECTURES = {
    "MLP": Architecture((28, 28, 1), _mlp),
    "DS-CNN": Architecture((49, 10, 1), _ds_cnn),
    "ResNet-8": Architecture((32, 32, 3), resnet_8),
    "MobileNet": Architecture((64, 64, 3), _application("MobileNet")),
    "MobileNetV2": Architecture((64, 64, 3), _application("MobileNetV2")),
    "MobileNetV3Small": Architecture((64, 64, 3), _application("MobileNetV3Small"), scale=255.0),
    "EfficientNetB0": Architecture((64, 64, 3), _application("EfficientNetB0"), scale=255.0),
    "VGG16": Architecture((32, 32, 3), _application("VGG16")),
    "ResNet50": Architecture((64, 64, 3), _application("ResNet50")),
    "DenseNet121": Architecture((64, 64, 3), _application("DenseNet121")),
    "InceptionV3": Architecture((75, 75, 3), _application("InceptionV3")),
    "Xception": Architecture((71, 71, 3), _application("Xception")),
}
