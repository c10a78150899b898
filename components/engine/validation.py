"""Checks what people write in YAML against a pydantic model; every message names key, place and what is legal."""

import reprlib
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from collabopt.components.engine.errors import CollaboptError

# Keys and positions from the root to a value.
Path = tuple[str | int, ...]

# What an alias repeats can be large beyond measure.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SECRET = "secret"


class Checked(BaseModel):
    """A mapping that takes no unknown key and no value of another type than its own."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


_Model = TypeVar("_Model", bound=Checked)


def refuse(message: str, *at: str | int) -> NoReturn:
    """Ends a validation, leading to the key `at`, which lies in what is validated."""
    raise PydanticCustomError("refused", "{message}", {"message": message, "at": at})


def refuse_secret(message: str) -> NoReturn:
    """Ends the validation of a value that must not be repeated in the message."""
    raise PydanticCustomError(_SECRET, "{message}", {"message": message})


def list_as_tuple(value: object) -> object:
    """YAML's sets, which have no order, stay what they are and are refused."""
    return tuple(value) if isinstance(value, list) else value


def validated(
    model: type[_Model],
    values: Any,
    *,
    what: str,
    source: str,
    place_of: Callable[[Path], str],
    legal: Callable[[Sequence[Path]], str],
) -> _Model:
    """Builds a model from what was read.

    Args:
        model: The model.
        values: What was read.
        what: What it is, as "the policy".
        source: Where it comes from, for messages.
        place_of: Path -> where exactly it was given, as "line 3"; "" where that is not known.
        legal: Paths of what is wrong -> what would be legal there.

    Raises:
        CollaboptError: Something in it is not valid; the message names all of it.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        details = error.errors(include_url=False)
        problems = [_problem(detail, place_of) for detail in details]
        raise CollaboptError(
            f"{what} is not valid: {'; '.join(dict.fromkeys(problems))}",
            where=source,
            todo=legal([_path(detail) for detail in details]),
        ) from error


def _path(detail: ErrorDetails) -> Path:
    # Where a key itself is wrong, pydantic says so after it.
    found = tuple(part for part in detail["loc"] if part != "[key]")
    return (*found, *detail.get("ctx", {}).get("at", ()))


def _problem(detail: ErrorDetails, place_of: Callable[[Path], str]) -> str:
    path = _path(detail)
    found = place_of(path)
    place = f" ({found})" if found else ""
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        return f"unknown key '{path[-1]}'{place}"
    if detail["type"] == "missing":
        return f"{key} is missing{place}"
    if detail["type"] == _SECRET:
        return f"{key}{place}: {detail['msg']}"
    message = "must be a list" if detail["type"] == "tuple_type" else detail["msg"]
    if detail["type"] == "model_type":
        message = "must map keys to values"
    return f"{key}: {_given(detail)}{place}: {message}"


def _given(detail: ErrorDetails) -> str:
    value = detail["input"]
    for part in detail.get("ctx", {}).get("at", ()):
        # A preference of a policy may be given as its figure alone.
        value = value if isinstance(value, str) else value[part]
    return _SHORT.repr(list(value) if isinstance(value, tuple) else value)
