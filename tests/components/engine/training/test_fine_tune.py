import pytest

from collabopt.components.engine.settings import TrainingSettings
from collabopt.components.engine.training.fine_tune import make_optimizer


def rates(optimizer, steps):
    """The learning rate that each of these steps is taken with."""
    import tf_keras

    weight = tf_keras.backend.variable(1.0)
    found = []
    for step in steps:
        optimizer.iterations.assign(step)
        optimizer.apply_gradients([(tf_keras.backend.constant(1.0), weight)])
        found.append(float(optimizer.learning_rate))
    return found


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adamw"])
@pytest.mark.parametrize(("schedule", "expected"), [("cosine", [0.125, 0.0625, 0]), ("constant", [0.125] * 3)])
def test_every_optimizer_that_the_settings_allow_follows_the_schedule(name, schedule, expected):
    settings = TrainingSettings(optimizer=name, learning_rate=0.125, learning_rate_schedule=schedule)
    optimizer = make_optimizer(settings, steps=40)
    assert optimizer.name.lower() == name
    assert rates(optimizer, [0, 20, 40]) == pytest.approx(expected, abs=1e-6)


def test_the_learning_rate_falls_unless_it_is_told_to_stay():
    first, last = rates(make_optimizer(TrainingSettings(), steps=10), [0, 10])
    assert last < first / 100
