"""Every stage runs inside a session: its log file, its progress events, its seeds."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.printed_to import printed_to
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
    with printed_to(_log_of(stage)):
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


def _log_of(stage: str) -> Path | None:
    """Where the stage is to print, if anywhere; its directory is made."""
    directory = os.environ.get(LOG_DIRECTORY_VARIABLE)
    if not directory:
        return None
    Path(directory).mkdir(parents=True, exist_ok=True)
    return Path(directory) / f"{stage}.log"
