import pytest

from collabopt.components.engine.settings import TrainingSettings
from collabopt.components.engine.training.fine_tune import make_optimizer


@pytest.mark.parametrize("name", ["adam", "sgd", "rmsprop", "adamw"])
def test_every_optimizer_that_the_settings_allow_exists(name):
    optimizer = make_optimizer(TrainingSettings(optimizer=name, learning_rate=0.125))
    assert optimizer.name.lower() == name
    assert float(optimizer.learning_rate) == 0.125
