import json
import subprocess
import sys

import numpy as np
import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.settings import settings_for
from collabopt.components.engine.training.distillation import Teacher, soft_cross_entropy, taught

RANDOM = np.random.default_rng(0)


def softmax(logits):
    exponents = np.exp(logits - logits.max(-1, keepdims=True))
    return exponents / exponents.sum(-1, keepdims=True)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_it_is_the_divergence_of_softened_scores(temperature):
    teacher, student = RANDOM.normal(size=(2, 5, 3)).astype(np.float32)
    p, q = softmax(teacher / temperature), softmax(student / temperature)
    expected = temperature**2 * np.sum(p * np.log(p / q), -1)
    found = soft_cross_entropy(teacher, student, temperature, from_logits=True)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    # Probabilities tell the same, but for those that an int8 output cannot tell from zero.
    found = soft_cross_entropy(softmax(teacher), softmax(student), temperature, from_logits=False)
    np.testing.assert_allclose(found, expected, rtol=0.1)


def test_one_output_stands_for_two_classes():
    teacher, student = RANDOM.normal(size=(2, 5, 1)).astype(np.float32)
    two = [np.concatenate([np.zeros_like(each), each], -1) for each in (teacher, student)]
    found = soft_cross_entropy(teacher, student, 2.0, from_logits=True)
    np.testing.assert_allclose(found, soft_cross_entropy(*two, 2.0, from_logits=True), rtol=1e-5)
    p, q = (1 / (1 + np.exp(-each)) for each in (teacher, student))
    two = [np.concatenate([1 - each, each], -1) for each in (p, q)]
    found = soft_cross_entropy(p, q, 2.0, from_logits=False)
    np.testing.assert_allclose(found, soft_cross_entropy(*two, 2.0, from_logits=False), rtol=1e-5)


def test_an_output_that_was_quantized_to_zero_still_learns():
    import tensorflow as tf

    student = tf.constant([[1.0, 0.0, 0.0]])
    with tf.GradientTape() as tape:
        tape.watch(student)
        loss = soft_cross_entropy(tf.constant([[0.5, 0.5, 0.0]]), student, 1.0, from_logits=False)
    gradient = tape.gradient(loss, student).numpy()
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] < 0  # more of the second class


ON_ONE_AND_TWO_DEVICES = """
import json
import numpy as np
import collabopt.components.engine
import tensorflow as tf
import tf_keras
from collabopt.components.engine.training.distillation import Teacher, soft_cross_entropy, taught

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
random = np.random.default_rng(0)
x, y = random.normal(size=(8, 4)).astype("float32"), random.integers(0, 3, 8)
kernels = random.normal(size=(2, 4, 3)).astype("float32")

def dense(kernel):
    model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3, use_bias=False)])
    model.set_weights([kernel])
    return model

def trained(strategy, weight):
    with strategy.scope():
        model = dense(kernels[0])
        model.compile("sgd", tf_keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    loss = lambda teacher, student, t: soft_cross_entropy(teacher, student, t, from_logits=True)
    with taught(model, Teacher(lambda: dense(kernels[1]), loss, weight, 4.0)):
        model.fit(x, y, batch_size=8, epochs=1, shuffle=False, verbose=0)
    return model.get_weights()[0].tolist()

def by_hand(weight):
    kernel = tf.Variable(kernels[0])
    with tf.GradientTape() as tape:
        scores = x @ kernel
        task = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, scores))
        learned = tf.nn.log_softmax(scores / 4)
        targets = tf.nn.softmax(x @ kernels[1] / 4)
        divergence = 16 * tf.reduce_mean(tf.reduce_sum(targets * (tf.math.log(targets) - learned), -1))
        loss = (1 - weight) * task + weight * divergence
    return (kernel - 0.01 * tape.gradient(loss, kernel)).numpy().tolist()

two = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
print(json.dumps([
    [trained(tf.distribute.get_strategy(), weight), trained(two, weight), by_hand(weight)] for weight in (0.3, 1.0)
]))
"""


def test_a_step_follows_the_gradient_of_both_losses_on_one_device_and_on_two():
    command = [sys.executable, "-c", ON_ONE_AND_TWO_DEVICES]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    for one, two, by_hand in json.loads(done.stdout.splitlines()[-1]):
        np.testing.assert_allclose(one, by_hand, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(two, by_hand, rtol=1e-5, atol=1e-6)


def test_afterwards_the_model_is_taught_no_more():
    import tf_keras

    def compiled():
        model = tf_keras.Sequential([tf_keras.Input((4,)), tf_keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        return model

    model, alone = compiled(), compiled()
    x, asked, own = RANDOM.normal(size=(8, 4)).astype(np.float32), [], model.compute_loss

    def loss(teacher, student, temperature):
        asked.append(temperature)
        return (teacher - student)[:, 0] ** 2

    with taught(model, Teacher(lambda: tf_keras.models.clone_model(model), loss, 0.5, 2.0)):
        model.fit(x, x[:, :3], verbose=0)
    assert set(asked) == {2.0}
    assert model.compute_loss == own
    assert [weight.shape for weight in model.get_weights()] == [(4, 3), (3,)]
    alone.set_weights(model.get_weights())
    for each in (model, alone):
        each.fit(x, x[:, :3], verbose=0)
    np.testing.assert_array_equal(model.get_weights()[0], alone.get_weights()[0])


@pytest.mark.parametrize(
    "settings",
    [{"distillation_weight": 1.1}, {"distillation_weight": -0.1}, {"distillation_temperature": 0.5}],
)
@pytest.mark.parametrize("technique", ["prune", "sparsity_preserving_cluster", "sparsity_cluster_preserving_qat"])
def test_what_makes_no_sense_is_refused(technique, settings):
    with pytest.raises(CollaboptError, match=next(iter(settings))):
        settings_for(technique, settings, "stage")
