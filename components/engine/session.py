"""Every stage runs inside a session: its log file, its progress events, its seeds."""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.progress import emit

LOG_DIRECTORY_VARIABLE = "COLLABOPT_LOG_DIR"
# How a stage learns which pipeline run it belongs to; an argument would make every run miss every cache.
PIPELINE_RUN_ID_VARIABLE = "COLLABOPT_PIPELINE_RUN_ID"
PIPELINE_NAME_VARIABLE = "COLLABOPT_PIPELINE_NAME"


@contextlib.contextmanager
def stage_session(stage: str) -> Iterator[None]:
    """Runs one stage: reports its start and its end, and sends its output to `<stage>.log` where logs are wanted.

    Args:
        stage: Name of the stage.
    """
    emit(stage, "started")
    with _logged_to_file(stage):
        try:
            yield
        except CollaboptError as error:
            emit(stage, "failed", message=str(error))
            raise
        except BaseException as error:
            emit(stage, "failed", message=f"{type(error).__name__}: {error}")
            raise


def make_deterministic(seed: int) -> None:
    """Makes TensorFlow repeat itself: same seed, same weights, same bytes."""
    import tensorflow as tf
    import tf_keras

    tf_keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


@contextlib.contextmanager
def _logged_to_file(stage: str) -> Iterator[None]:
    directory = os.environ.get(LOG_DIRECTORY_VARIABLE)
    if not directory:
        yield
        return
    Path(directory).mkdir(parents=True, exist_ok=True)
    with open(Path(directory) / f"{stage}.log", "ab", buffering=0) as log:
        sys.stdout.flush()
        sys.stderr.flush()
        saved = os.dup(1), os.dup(2)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            for descriptor, copy in zip((1, 2), saved, strict=True):
                os.dup2(copy, descriptor)
                os.close(copy)
