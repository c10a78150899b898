"""A trained Keras model, from wherever and in whichever format it was saved, as a flat tf_keras model."""

import json
import tempfile
import zipfile
import zlib
from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.fetch import local_copy
from collabopt.components.engine.models.flatten import flatten_model
from collabopt.components.engine.models.rebuild import rebuild
from collabopt.components.engine.models.safety import check_config

FORMATS = "pass a whole Keras model: a .keras file, a .h5 file, or a SavedModel directory"
HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
ZIP_SIGNATURE = b"PK"
KERAS_3 = 3


def load_model(source: str, *, allow_lambda: bool = False, seed: int = 0) -> Any:
    """Loads a trained model, whichever Keras saved it.

    The file's content decides on its format, not its suffix. No code that came with the file is run unless
    `allow_lambda` is set: the config is judged before Keras sees it. A Keras 3 model is rebuilt in tf_keras and must
    predict the same; nested models are dissolved. Nothing is compiled.

    Args:
        source: Path or `gs://` URI of a `.keras` file, a `.h5` file or a SavedModel directory.
        allow_lambda: Accept Lambda layers, which run code that came with the file.
        seed: Seeds the random input on which a Keras 3 model and its rebuilt form are compared.

    Returns:
        A tf_keras model without nested models.

    Raises:
        CollaboptError: The source does not exist, does not read, is no Keras model, would run foreign code, or has
            no equal in tf_keras.
    """
    with tempfile.TemporaryDirectory() as directory:
        path = local_copy(source, Path(directory))
        if path.is_dir():
            return flatten_model(_load_saved_model(path, source, allow_lambda))
        signature = _first_bytes(path)
        if signature.startswith(ZIP_SIGNATURE):
            return _load_archive(path, source, allow_lambda, seed)
        if signature == HDF5_SIGNATURE:
            return _load_hdf5(path, source, allow_lambda, seed)
    raise CollaboptError(
        f"this is no Keras model: the file is neither a .keras archive nor HDF5 (it starts with {signature!r})",
        where=source,
        todo=FORMATS,
    )


def _first_bytes(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(len(HDF5_SIGNATURE))


def _load_archive(path: Path, source: str, allow_lambda: bool, seed: int) -> Any:
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            names = set(archive.namelist())
            config = json.loads(archive.read("config.json")) if "config.json" in names else None
            metadata = json.loads(archive.read("metadata.json")) if "metadata.json" in names else {}
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError) as error:
        raise _damaged(source, str(error)) from error
    if damaged:
        raise _damaged(source, f"bad checksum of {damaged}")
    if config is None or "model.weights.h5" not in names:
        raise CollaboptError(
            "this ZIP archive is no .keras model: it lacks config.json or model.weights.h5", where=source, todo=FORMATS
        )
    check_config(config, source, allow_lambda=allow_lambda)
    return _load_file(path, ".keras", source, allow_lambda, seed, metadata.get("keras_version"))


def _load_hdf5(path: Path, source: str, allow_lambda: bool, seed: int) -> Any:
    import h5py

    try:
        with h5py.File(path, "r") as file:
            config_text, version = file.attrs.get("model_config"), file.attrs.get("keras_version")
    except OSError as error:
        raise _damaged(source, str(error)) from error
    if config_text is None:
        raise CollaboptError(
            "this HDF5 file holds weights only, or no Keras model at all: it has no model_config",
            where=source,
            todo="save the whole model with model.save(...), not save_weights(...)",
        )
    try:
        config = json.loads(config_text)
    except ValueError as error:
        raise _damaged(source, f"model_config: {error}") from error
    check_config(config, source, allow_lambda=allow_lambda)
    return _load_file(path, ".h5", source, allow_lambda, seed, version)


def _load_file(path: Path, suffix: str, source: str, allow_lambda: bool, seed: int, version: Any) -> Any:
    """Loads a file whose config has been judged, with the Keras that wrote it."""
    text = version.decode() if isinstance(version, bytes) else str(version)
    major = int(text.partition(".")[0]) if text.partition(".")[0].isdigit() else 2
    with tempfile.TemporaryDirectory() as directory:
        named = Path(directory) / f"model{suffix}"  # Keras goes by the suffix
        named.symlink_to(path.resolve())
        if major >= KERAS_3:
            import keras

            return rebuild(_with_keras(keras, named, source, allow_lambda), seed)
        import tf_keras

        return flatten_model(_with_keras(tf_keras, named, source, allow_lambda))


def _load_saved_model(path: Path, source: str, allow_lambda: bool) -> Any:
    import tf_keras
    from google.protobuf.message import DecodeError
    from tf_keras.protobuf.saved_metadata_pb2 import SavedMetadata

    if not (path / "saved_model.pb").is_file():
        raise CollaboptError("this directory is no SavedModel: it has no saved_model.pb", where=source, todo=FORMATS)
    metadata_file = path / "keras_metadata.pb"
    if not metadata_file.is_file():
        raise CollaboptError(
            "this SavedModel has no Keras layers, only a graph: there is nothing to prune, cluster or retrain",
            where=source,
            todo="save the Keras model itself, with model.save('model.keras') instead of model.export(...) or "
            "tf.saved_model.save(...)",
        )
    try:
        nodes = SavedMetadata.FromString(metadata_file.read_bytes()).nodes
        configs = [json.loads(node.metadata) for node in nodes]
    except (DecodeError, ValueError) as error:
        raise _damaged(source, f"keras_metadata.pb: {error}") from error
    for config in configs:
        check_config(config, source, allow_lambda=allow_lambda)
    model = _with_keras(tf_keras, path, source, allow_lambda)
    for layer in getattr(model, "layers", []):
        if "saved_model" in type(layer).__module__:
            raise CollaboptError(
                f"layer '{layer.name}' is a custom layer of which the SavedModel has the graph only",
                where=source,
                todo="use Keras's own layers, or save the model as .keras",
            )
    return model


def _with_keras(library: Any, path: Path, source: str, allow_lambda: bool) -> Any:
    import tensorflow as tf

    try:
        model = library.models.load_model(path, compile=False, safe_mode=not allow_lambda)
    except (ValueError, TypeError, KeyError, AttributeError, ImportError, OSError, tf.errors.OpError) as error:
        raise CollaboptError(
            f"{library.__name__} {library.__version__} cannot load this model: {error}",
            where=source,
            todo="load and save it again where it was trained; custom layers are not supported",
        ) from error
    if not isinstance(model, library.Model):
        raise CollaboptError(f"this is a {type(model).__name__}, no Keras model", where=source, todo=FORMATS)
    return model


def _damaged(source: str, detail: str) -> CollaboptError:
    return CollaboptError(
        f"the model file is damaged or incomplete: {detail}", where=source, todo="copy or save it again"
    )
