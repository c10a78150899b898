"""The fp32 model in a stage's `Model` directory."""

from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError

MODEL_FILE = "model.keras"


def save_model(model: Any, directory: str | Path) -> Path:
    """Saves a plain, uncompiled fp32 tf_keras model (no TFMOT wrappers) and returns the file's path."""
    path = Path(directory) / MODEL_FILE
    path.parent.mkdir(parents=True, exist_ok=True)
    model.save(path, save_format="keras")
    return path


def load_stage_model(directory: str | Path, *, allow_lambda: bool = False) -> Any:
    """Loads the fp32 tf_keras model of a stage, uncompiled; always a fresh copy.

    Stages never share a model object: pruning and clustering train their parent's own layers.

    Args:
        directory: `Model` directory of the stage.
        allow_lambda: Whether the baseline was accepted with Lambda layers.

    Raises:
        CollaboptError: There is no fp32 model in the directory.
    """
    import tf_keras

    path = Path(directory) / MODEL_FILE
    if not path.is_file():
        raise CollaboptError(
            f"there is no {MODEL_FILE} in this artifact",
            where=str(directory),
            todo="pass the model of an interior stage or of import_model",
        )
    return tf_keras.models.load_model(path, compile=False, safe_mode=not allow_lambda)
