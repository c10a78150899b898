import numpy as np
import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.training.classification import TASK


@pytest.mark.parametrize(
    ("outputs", "labels", "expected"),
    [
        ([[0.1, 0.7, 0.2], [0.9, 0.0, 0.1], [0.3, 0.3, 0.4], [0.5, 0.4, 0.1]], [1, 0, 2, 1], 0.75),
        ([[0.1, 0.9], [0.8, 0.2]], [[1], [1]], 0.5),
        ([[0.4], [0.6], [0.9], [0.1]], [0, 1, 1, 1], 0.75),
        ([[0.3], [2.5], [-1.0], [-0.2]], [1, 1, 0, 1], 0.75),
    ],
    ids=["classes", "labels n x 1", "probabilities of two classes", "logits of two classes"],
)
def test_accuracy(outputs, labels, expected):
    assert TASK.measure(np.array(outputs, np.float32), np.array(labels)) == {"accuracy": expected}


@pytest.mark.parametrize(
    ("labels", "output_shape"),
    [
        (np.array([0, 9]), (10,)),
        (np.array([[0], [2]], np.uint8), (3,)),
        (np.array([0, 1]), (1,)),
    ],
    ids=["indices", "indices n x 1", "two classes from one output"],
)
def test_fitting_labels_are_accepted(labels, output_shape):
    TASK.check(labels, output_shape)


@pytest.mark.parametrize(
    ("labels", "output_shape", "what", "todo"),
    [
        (np.array([0, -1]), (3,), r"out of range: found -1..0, but the model has 3 classes \(0..2\)", "counted from 0"),
        (np.array([1, 3]), (3,), "out of range: found 1..3", "belong together"),
        (np.array([0, 2]), (1,), r"found 0..2, but the model has 2 classes \(0..1\)", "counted from 0"),
        (np.array([0.0, 1.0]), (3,), "must be integers, but have type float64", "astype"),
        (np.array([True, False]), (1,), "must be integers, but have type bool", "astype"),
        (np.eye(3), (3,), "as one-hot labels have", "argmax"),
        (np.eye(3, dtype=int), (3,), "as one-hot labels have", "argmax"),
        (np.zeros((4, 5), int), (3,), r"must be one class index a sample, but have shape \(5,\)", "task of your own"),
        (np.array([0, 1]), (), r"the model's output has shape \(\)", "flat output"),
        (np.array([0, 1]), (8, 8, 3), r"the model's output has shape \(8, 8, 3\)", "flat output"),
    ],
)
def test_labels_that_do_not_fit_the_model_are_refused(labels, output_shape, what, todo):
    with pytest.raises(CollaboptError, match=what) as caught:
        TASK.check(labels, output_shape)
    assert todo in caught.value.todo


def _models():
    import tensorflow as tf
    from tf_keras import Model, Sequential, layers

    def model(*parts):
        return Sequential([layers.Input((4,)), *parts])

    features = layers.Input((4,))
    yield "softmax", model(layers.Dense(3, activation="softmax")), False
    yield "softmax of tf.nn", model(layers.Dense(3, activation=tf.nn.softmax)), False
    yield "softmax layer", model(layers.Dense(3), layers.Softmax()), False
    yield "softmax as activation layer", model(layers.Dense(3), layers.Activation("softmax")), False
    yield "softmax as op", Model(features, tf.nn.softmax(layers.Dense(3)(features))), False
    yield "softmax, then a cast", model(layers.Dense(3, activation="softmax"), layers.Activation("linear")), False
    yield "softmax, then shapes", model(layers.Dense(3, "softmax"), layers.Reshape((3, 1)), layers.Flatten()), False
    yield "softmax in an inner model", model(model(layers.Dense(3, activation="softmax"))), False
    yield "logits", model(layers.Dense(3)), True
    yield "sigmoid", model(layers.Dense(1, activation="sigmoid")), False
    yield "logit", model(layers.Dense(1)), True


def test_the_loss_is_that_of_the_models_output():
    import tf_keras

    for name, model, takes_logits in _models():
        loss = TASK.loss(model)
        classes = model.output_shape[-1]
        kind = tf_keras.losses.BinaryCrossentropy if classes == 1 else tf_keras.losses.SparseCategoricalCrossentropy
        assert isinstance(loss, kind), name
        assert loss.get_config()["from_logits"] is takes_logits, name
