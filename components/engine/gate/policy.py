"""What a leaf must keep to be shipped, and what is then minimized: a few lines of YAML, checked up front."""

from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from collabopt.components.engine.errors import CollaboptError

Bytes = Annotated[int, Field(gt=0)]


class Policy(BaseModel):
    """Limits on the leaves and the figure that decides between those within them.

    Attributes:
        max_drop: Largest accepted loss of the task's metric against the fp32 baseline, in the metric's own unit (0.02
            is two points of an accuracy between 0 and 1); 0 accepts no loss at all.
        max_tflite_bytes: Largest accepted size of the `.tflite` file; null for no limit.
        max_gzip_bytes: Largest accepted size of the file after gzip -9; null for no limit.
        minimize: Of the leaves within the limits, the one with the least of this is shipped.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_drop: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.02
    max_tflite_bytes: Bytes | None = None
    max_gzip_bytes: Bytes | None = None
    minimize: Literal["tflite_bytes", "gzip_bytes", "zip_bytes"] = "gzip_bytes"


def parse_policy(text: str) -> Policy:
    """Reads a policy.

    Args:
        text: YAML; empty for the default policy, which accepts a drop of 0.02 and ships the leaf that is smallest
            after gzip.

    Raises:
        CollaboptError: It is not a valid policy; the message names keys and lines.
    """
    return _parse(text, "policy")


def read_policy(path: str | Path) -> Policy:
    """Reads a policy from a YAML file in UTF-8; see `parse_policy`.

    Raises:
        CollaboptError: The file cannot be read or does not hold a valid policy.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CollaboptError(
            f"the policy cannot be read: {reason}", where=str(path), todo="pass a YAML file"
        ) from error
    return _parse(text, str(path))


def _parse(text: str, source: str) -> Policy:
    try:
        lines = _lines_of_keys(text, source)
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        problem = getattr(error, "problem", None) or str(error)
        raise CollaboptError(
            f"the policy is not valid YAML: {problem}",
            where=_at(source, mark.line + 1 if mark else None),
            todo="write one `key: value` per line, for example `max_drop: 0.02`",
        ) from error
    try:
        return Policy.model_validate(values or {})
    except ValidationError as error:
        problems = [_problem(detail, lines) for detail in error.errors()]
        raise CollaboptError(
            f"the policy is not valid: {'; '.join(problems)}",
            where=source,
            todo=f"keys of a policy: {', '.join(Policy.model_fields)}",
        ) from error


def _lines_of_keys(text: str, source: str) -> dict[str, int]:
    """Line of every key, counted from 1; refuses what YAML would accept: another shape, a key given twice."""
    root = yaml.compose(text, Loader=yaml.SafeLoader)
    if root is None or root.tag == "tag:yaml.org,2002:null":
        return {}
    if not isinstance(root, yaml.MappingNode):
        raise CollaboptError(
            "the policy must map keys to values",
            where=_at(source, root.start_mark.line + 1),
            todo="write one `key: value` per line, for example `max_drop: 0.02`",
        )
    lines: dict[str, int] = {}
    for key, _ in root.value:
        line = key.start_mark.line + 1
        name = str(key.value)
        if name in lines:
            raise CollaboptError(
                f"the policy gives '{name}' twice (lines {lines[name]} and {line})",
                where=source,
                todo="keep one of them",
            )
        lines[name] = line
    return lines


def _problem(detail: ErrorDetails, lines: dict[str, int]) -> str:
    name = str(detail["loc"][0])
    line = f" (line {lines[name]})" if name in lines else ""
    if detail["type"] == "extra_forbidden":
        return f"unknown key '{name}'{line}"
    given = detail["input"]
    hint = ", not text" if isinstance(given, str) and name.startswith("max_") else ""
    return f"{name}: {given!r}{line}: {detail['msg']}{hint}"


def _at(source: str, line: int | None) -> str:
    return source if line is None else f"{source}, line {line}"
