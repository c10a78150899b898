"""The numbers of a policy: plain ones, and shares of what is compared with."""

import math
import re
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema
from pydantic_core import PydanticCustomError


def share_of(amount: float | str, reference: float) -> float:
    """What an amount is beside a reference: itself, or for `2%` that share of the reference's size."""
    return float(amount[:-1]) / 100 * abs(reference) if isinstance(amount, str) else amount


def _amount(value: object) -> float | str:
    if isinstance(value, str):
        if re.fullmatch(r"[0-9]+(\.[0-9]+)?%", value) and math.isfinite(float(value[:-1])):
            return value
        raise PydanticCustomError("amount", "write a number, as 0.02 or 500, or a share of the reference, as 2%")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("amount", "must be a number or a share, as 2%")
    if not _is_finite(value) or value < 0:
        raise PydanticCustomError("amount", "must be finite and not negative")
    return float(value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise PydanticCustomError("number", "must be a number, as 0.8 or 60000")
    if not _is_finite(value) or value < 0:
        raise PydanticCustomError("number", "must be finite and not negative")
    return float(value)


def _is_finite(value: int | float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond every float
        return False


_NUMBER_SCHEMA = {"type": "number", "minimum": 0}
# A float, or a share of the reference as text: "2%".
Amount = Annotated[
    float | str,
    PlainValidator(_amount),
    WithJsonSchema({"anyOf": [_NUMBER_SCHEMA, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%$"}]}),
]
Number = Annotated[float, PlainValidator(_number), WithJsonSchema(_NUMBER_SCHEMA)]
