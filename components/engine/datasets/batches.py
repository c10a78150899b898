"""Arrays to `tf.data` batches."""

from collections.abc import Callable
from typing import Any

import numpy as np

from collabopt.components.engine.datasets.splits import Samples


def batches_of(
    samples: Samples,
    scaled: Callable[[np.ndarray], np.ndarray],
    batch_size: int,
    *,
    shuffle_seed: int | None,
    augment: Callable[[Any, Any], tuple[Any, Any]] | None,
    in_memory_bytes: int,
) -> Any:
    """Samples as a `tf.data.Dataset` of (features float32 `[b, ...]`, labels `[b, ...]`) batches.

    Rows are shuffled as indices, so that a shuffle is one of the whole split at eight bytes a sample, and small and
    large splits come in the same order.

    Args:
        samples: May be memory-mapped.
        scaled: Stored features -> what the model is fed, float32.
        batch_size: Samples per batch; the last one may be smaller.
        shuffle_seed: Reshuffles every epoch, deterministically; None keeps the order.
        augment: Applied to every batch of tensors; None for none.
        in_memory_bytes: Features up to this size as float32 are held in memory, scaled once.
    """
    import tensorflow as tf

    rows = tf.data.Dataset.range(len(samples))
    if shuffle_seed is not None:
        rows = rows.shuffle(len(samples), seed=shuffle_seed, reshuffle_each_iteration=True)
    is_small = samples.features.size * np.dtype(np.float32).itemsize <= in_memory_bytes
    batches = rows.batch(batch_size).map(_from_memory(samples, scaled) if is_small else _from_disk(samples, scaled))
    if augment is not None:
        batches = batches.map(augment)
    return batches.prefetch(2)


def _from_memory(samples: Samples, scaled: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], tuple[Any, Any]]:
    import tensorflow as tf

    with tf.device("/CPU:0"):  # tf.data runs there; tensors on an accelerator would be copied for every batch
        features = tf.constant(scaled(samples.features))
        labels = tf.constant(np.asarray(samples.labels))
    return lambda indices: (tf.gather(features, indices), tf.gather(labels, indices))


def _from_disk(samples: Samples, scaled: Callable[[np.ndarray], np.ndarray]) -> Callable[[Any], tuple[Any, Any]]:
    import tensorflow as tf

    def read(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = samples.take(indices)
        return scaled(batch.features), np.asarray(batch.labels)

    def fetch(indices: Any) -> tuple[Any, Any]:
        features, labels = tf.numpy_function(read, [indices], [tf.float32, samples.labels.dtype])
        features.set_shape((None, *samples.features.shape[1:]))
        labels.set_shape((None, *samples.labels.shape[1:]))
        return features, labels

    return fetch
