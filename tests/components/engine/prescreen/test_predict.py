"""Predictions come from forks, which a process that has computed must not make."""

import pytest

from collabopt.components.engine.prescreen.predict import preload


def test_where_forks_would_hang_predictions_are_refused():
    import tensorflow as tf

    assert int(tf.constant(1) + 1) == 2
    with pytest.raises(RuntimeError, match="make them in another one"):
        preload()
