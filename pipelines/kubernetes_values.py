"""Texts and numbers as Kubernetes takes them, checked before a cluster sees them."""

import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from collabopt.components.engine.validation import list_as_tuple, refuse

# Kubernetes keeps seconds in 32 bits.
_MOST_SECONDS = 2**31 - 1
_DURATION = re.compile(r"(?=\d)(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")
_CPU = re.compile(r"(\d+)m|(\d+(?:\.\d{1,3})?)")
# Those that both Kubernetes and Kubeflow Pipelines read: the one writes k for 1000, the other K.
_MEMORY_UNITS = {"": 1} | {
    f"{letter}{binary}": (1024 if binary else 1000) ** power
    for power, letter in enumerate("KMGTPE", start=1)
    for binary in ("i", "")
    if (letter, binary) != ("K", "")
}
_MEMORY = re.compile(r"(\d+)([A-Z]i?)?")
_LEAST_MEMORY_BYTES = 1024**2

_LABEL_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_DNS_NAME = rf"(?=.{{1,253}}$){_DNS_LABEL}(?:\.{_DNS_LABEL})*"
_QUALIFIED_NAME = rf"(?:(?=[^/]{{1,253}}/){_DNS_LABEL}(?:\.{_DNS_LABEL})*/)?{_LABEL_NAME}"

# The grammar of https://github.com/distribution/reference/blob/main/reference.go
_HOST_PART = r"[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?"
_PATH_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_IMAGE = re.compile(
    rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*(?::\d+)?/)?{_PATH_PART}(?:/{_PATH_PART})*"
    r"(?::\w[\w.-]{0,127})?(?:@[A-Za-z0-9+._-]+:[0-9a-fA-F]{32,})?"
)


def millicores(cpu: str) -> float:
    """Thousandths of a processor that a quantity as `500m` or `2` stands for."""
    return float(cpu[:-1]) if cpu.endswith("m") else 1000 * float(cpu)


def memory_bytes(memory: str) -> int:
    """Bytes that a quantity as `4Gi` stands for."""
    number, unit = _MEMORY.fullmatch(memory).groups(default="")  # type: ignore[union-attr]
    return int(number) * _MEMORY_UNITS[unit]


def _seconds(value: object) -> object:
    if not isinstance(value, str):
        return value
    match = _DURATION.fullmatch(value)
    if not match:
        refuse("is no duration; write seconds, or 90s, 45m, 2h, 1h30m, 7d")
    days, hours, minutes, seconds = (int(part) for part in match.groups(default="0"))
    return ((days * 24 + hours) * 60 + minutes) * 60 + seconds


def _cpu(value: object) -> object:
    text = str(value) if type(value) in (int, float) else value
    if isinstance(text, str) and not (_CPU.fullmatch(text) and millicores(text)):
        refuse("is no amount of processors; write 2, 0.5 or 500m")
    return text


def _memory(value: object) -> object:
    text = str(value) if type(value) is int else value
    if isinstance(text, str):
        match = _MEMORY.fullmatch(text)
        if not match or match.group(2) not in (None, *_MEMORY_UNITS):
            refuse(f"is no amount of memory; write a whole number with one of {', '.join(filter(None, _MEMORY_UNITS))}")
        if memory_bytes(text) < _LEAST_MEMORY_BYTES:
            refuse("is too little memory for anything to start; mind the unit, as in 4Gi")
    return text


def _image(text: str) -> str:
    if not _IMAGE.fullmatch(text):
        refuse("is no image reference; write registry.example.com/name:tag, or name@sha256:...")
    return text


def _whole(expression: re.Pattern[str]) -> str:
    """As JSON schema needs it, where a pattern may match anywhere."""
    return f"^(?:{expression.pattern})$"


Duration = Annotated[
    int,
    BeforeValidator(_seconds),
    Field(gt=0, le=_MOST_SECONDS),
    WithJsonSchema({"type": ["integer", "string"], "minimum": 1, "pattern": _whole(_DURATION)}),
]
"""Seconds; written as a number of them, or as `90s`, `45m`, `2h`, `1h30m`, `7d`."""

Cpu = Annotated[str, BeforeValidator(_cpu), WithJsonSchema({"type": ["string", "number"], "pattern": _whole(_CPU)})]
"""Processors: `2`, `0.5` or `500m`."""

Memory = Annotated[
    str, BeforeValidator(_memory), WithJsonSchema({"type": ["string", "integer"], "pattern": _whole(_MEMORY)})
]
"""Bytes: `4Gi`, `512Mi`, `2G`."""

Image = Annotated[str, AfterValidator(_image)]
"""A reference of an image, with registry, tag or digest."""


def _matching(pattern: str, what: str) -> AfterValidator:
    expression = re.compile(pattern)

    def check(text: str) -> str:
        if not expression.fullmatch(text):
            refuse(what)
        return text

    return AfterValidator(check)


Name = Annotated[
    str, _matching(_DNS_NAME, "is no name of an object; write lower-case letters, digits, '-' and '.', as kfp-secret")
]
"""Name of an object, for example of a Secret."""

SecretKey = Annotated[
    str, _matching(r"[A-Za-z0-9._-]{1,253}", "is no key of a Secret; write letters, digits, '-', '_' and '.'")
]
"""Key within a Secret."""

QualifiedName = Annotated[
    str,
    _matching(
        _QUALIFIED_NAME,
        "is no key of a label; write at most 63 letters, digits, '-', '_' and '.', if need be after a domain and a "
        "slash, as example.com/team",
    ),
]
"""Key of a label, of a taint or of a resource, as `nvidia.com/gpu`."""

LabelValue = Annotated[
    str,
    _matching(
        rf"(?:{_LABEL_NAME})?", "is no value of a label; write at most 63 letters, digits, '-', '_' and '.', in quotes"
    ),
]
"""Value of a label; may be empty."""

Labels = Annotated[dict[QualifiedName, LabelValue], Field()]
"""Labels by key."""

Names = Annotated[tuple[Name, ...], BeforeValidator(list_as_tuple)]
"""Names of objects; a list in YAML."""
