"""One field of a `tf.train.Example` to one array."""

import math
from typing import Any

import numpy as np

from collabopt.components.engine.datasets.feature_spec import FieldSpec
from collabopt.components.engine.datasets.image import decode_image
from collabopt.components.engine.errors import CollaboptError

TODO = "correct feature_spec, or write the records again"


def decode_field(example: Any, spec: FieldSpec, *, name: str) -> np.ndarray:
    """Decodes one field.

    Args:
        example: A `tf.train.Example`.
        spec: Where the field lies and how.
        name: File and number of the record, for messages.

    Returns:
        `spec.shape` of `spec.dtype`.

    Raises:
        CollaboptError: The record has no such field, or the field holds something else than the spec says.
    """
    fields = example.features.feature
    if spec.key not in fields:
        found = ", ".join(sorted(fields)) or "nothing"
        raise CollaboptError(f"the record has no field '{spec.key}'; it holds {found}", where=name, todo=TODO)
    kind = fields[spec.key].WhichOneof("kind") or "nothing"
    values = getattr(fields[spec.key], kind).value if kind != "nothing" else []
    wanted = _list_kind(spec)
    if kind != wanted:
        raise CollaboptError(
            f"field '{spec.key}' is a {kind}, but feature_spec (encoding {spec.encoding}, dtype {spec.dtype}) "
            f"needs a {wanted}",
            where=name,
            todo=TODO,
        )
    if spec.encoding == "values":
        return _from_values(np.array(values), spec, name)
    if len(values) != 1:
        raise CollaboptError(f"field '{spec.key}' holds {len(values)} byte strings, not one", where=name, todo=TODO)
    if spec.encoding == "image":
        height, width, channels = spec.shape
        return decode_image(values[0], (height, width, channels), name=f"field '{spec.key}' of {name}")
    return _from_raw(values[0], spec, name) if spec.encoding == "raw" else _from_tensor(values[0], spec, name)


def _list_kind(spec: FieldSpec) -> str:
    if spec.encoding != "values":
        return "bytes_list"
    return "float_list" if np.dtype(spec.dtype).kind == "f" else "int64_list"


def _from_values(values: np.ndarray, spec: FieldSpec, name: str) -> np.ndarray:
    if values.size != math.prod(spec.shape):
        raise _wrong_size(f"{values.size} values", spec, name)
    array = values.astype(spec.dtype)
    if array.dtype.kind in "biu" and not np.array_equal(array, values):
        raise CollaboptError(
            f"field '{spec.key}' holds {values.min()}..{values.max()}, which does not fit {spec.dtype}",
            where=name,
            todo=TODO,
        )
    return array.reshape(spec.shape)


def _from_raw(content: bytes, spec: FieldSpec, name: str) -> np.ndarray:
    dtype = np.dtype(spec.dtype).newbyteorder("<")
    if len(content) != math.prod(spec.shape) * dtype.itemsize:
        raise _wrong_size(f"{len(content)} bytes", spec, name)
    return np.frombuffer(content, dtype).astype(spec.dtype).reshape(spec.shape)


def _from_tensor(content: bytes, spec: FieldSpec, name: str) -> np.ndarray:
    import tensorflow as tf

    try:
        array = tf.io.parse_tensor(content, tf.as_dtype(spec.dtype)).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise CollaboptError(
            f"field '{spec.key}' is no serialized tensor of {spec.dtype}: {error.message}", where=name, todo=TODO
        ) from error
    if array.shape != spec.shape:
        raise _wrong_size(f"a tensor of shape {list(array.shape)}", spec, name)
    return array


def _wrong_size(found: str, spec: FieldSpec, name: str) -> CollaboptError:
    return CollaboptError(
        f"field '{spec.key}' holds {found}, which is not shape {list(spec.shape)} of {spec.dtype}",
        where=name,
        todo=TODO,
    )
