"""How features and labels lie in a TFRecord."""

from collections.abc import Mapping
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from collabopt.components.engine.errors import CollaboptError

EXAMPLE = (
    'set feature_spec to, for example, {"features": {"key": "image", "encoding": "image", "shape": [96, 96, 3]}, '
    '"label": {"key": "label", "dtype": "int64"}}'
)


class FieldSpec(BaseModel):
    """One field of a record.

    Attributes:
        key: Name of the field in the record.
        encoding: `values`: a list of integers or floats; `image`: an encoded image; `raw`: the bytes of an array,
            little-endian, row by row; `tensor`: the output of `tf.io.serialize_tensor`.
        dtype: NumPy type that the values have (`raw`, `tensor`) or get (`values`); images are always uint8.
        shape: Shape of one sample; empty for a scalar. Height, width and channels of an image, where the settings'
            are not meant.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    key: str
    encoding: Literal["values", "image", "raw", "tensor"] = "values"
    dtype: str = "float32"
    shape: tuple[int, ...] = ()

    @field_validator("dtype")
    @classmethod
    def _is_a_number_type(cls, dtype: str) -> str:
        problem = "not a numeric NumPy type, such as float32, uint8 or int64"
        try:
            numeric = np.dtype(dtype).kind in "biuf"
        except TypeError as error:
            raise ValueError(problem) from error
        if not numeric:
            raise ValueError(problem)
        return dtype


class RecordSpec(BaseModel):
    """The two fields of a record that are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    features: FieldSpec
    label: FieldSpec


def parse_feature_spec(values: Mapping[str, Any], image_shape: tuple[int, int, int], where: str) -> RecordSpec:
    """Reads the setting `feature_spec`.

    Args:
        values: The setting.
        image_shape: Height, width and channels of images that give no shape of their own.
        where: The source, for messages.

    Raises:
        CollaboptError: It is missing, has unknown names, or an illegal value.
    """
    if not values:
        raise CollaboptError("TFRecord files need the setting feature_spec", where=where, todo=EXAMPLE)
    try:
        spec = RecordSpec.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise CollaboptError(f"feature_spec is not valid: {problems}", where=where, todo=EXAMPLE) from error
    return RecordSpec(
        features=_with_image_shape(spec.features, image_shape, where),
        label=_with_image_shape(spec.label, image_shape, where),
    )


def _with_image_shape(field: FieldSpec, image_shape: tuple[int, int, int], where: str) -> FieldSpec:
    if field.encoding != "image":
        return field
    shape = field.shape or image_shape
    if len(shape) != 3 or shape[2] not in (1, 3) or min(shape) < 1:
        raise CollaboptError(
            f"feature_spec: an image's shape is height, width and 1 or 3 channels, not {list(shape)}",
            where=where,
            todo=EXAMPLE,
        )
    return field.model_copy(update={"shape": shape, "dtype": "uint8"})
