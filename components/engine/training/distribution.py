"""On which devices a stage fine-tunes."""

from typing import Any


def fine_tuning_strategy() -> Any:
    """The strategy in whose scope a stage wraps its model; a model stays with the strategy that it was built under.

    Returns:
        `MirroredStrategy` over all GPUs where there are several: each has a copy of the model and takes its part of
        every batch, so batch size, steps and schedules stay what the settings say. Otherwise the strategy that is in
        force, which is TensorFlow's default unless the caller has entered another.
    """
    import tensorflow as tf

    if len(tf.config.list_logical_devices("GPU")) > 1 and not tf.distribute.has_strategy():
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
