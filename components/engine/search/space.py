"""The space of a search: a few lines of YAML that give every axis its values, or a range."""

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_plan import LayerPlan
from collabopt.components.engine.search.plans import PLAN, parse_plans
from collabopt.components.engine.validation import Checked, refuse, validated
from collabopt.components.engine.yaml_lines import place_in, place_of, read_yaml

Value = float | int | str | bool
# Axis -> its value in one trial.
Configuration = dict[str, Value]

# More configurations than any search tries.
MOST_POINTS = 10_000

_EXAMPLE_LINE = "sparsity: [0.5, 0.6, 0.8]"
_FORMS = "write a list of values, or {low, high} with `step` or `log: true`"


def _number(value: object) -> object:
    """One message where pydantic has one for every type of a union."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse("must be a number")
    return value


Number = Annotated[int | float, BeforeValidator(_number)]


class Range(Checked):
    """Every number from one to another, whole numbers where both are whole; with a step, as far as steps go."""

    low: Number = Field(description="The least value.")
    high: Number = Field(description="The largest value.")
    step: Number | None = Field(default=None, description="Only values in steps of this size, from `low` on.")
    log: bool = Field(default=False, description="Whether ratios count instead of differences.")

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not all(math.isfinite(value) for value in (self.low, self.high, self.step or 1)):
            refuse("ends and step must be finite")
        if self.low >= self.high:
            refuse(f"`low` must be below `high`, and {self.low:g} is not below {self.high:g}", "low")
        if self.log and self.step is not None:
            refuse("give `step` or `log`, not both", "step")
        if self.log and self.low <= 0:
            refuse("a range of ratios begins above zero", "low")
        if self.step is not None and not 0 < self.step <= self.high - self.low:
            refuse("the step must be above zero and no larger than the range", "step")
        if self.is_whole and isinstance(self.step, float):
            refuse("a range of whole numbers has a whole step", "step")
        return self

    @property
    def is_whole(self) -> bool:
        """Whether it holds whole numbers."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def to_check(self) -> tuple[Value, ...]:
        """The values that show whether all are legal: the ends, and one between that is no whole number by chance."""
        if self.is_whole:
            return self.low, self.high
        between = (
            self.low + (self.high - self.low) / math.pi if self.step is None else self.as_step(self.low + self.step)
        )
        return self.low, between, self.high

    @property
    def values(self) -> Sequence[Value] | None:
        """All of them, in order; None where there is no counting them."""
        if self.is_whole:
            return range(int(self.low), int(self.high) + 1, int(self.step or 1))
        if self.step is None:
            return None
        steps = math.floor((self.high - self.low) / self.step + 1e-9)
        return [self.as_step(self.low + number * self.step) for number in range(steps + 1)]

    def as_step(self, value: float) -> float:
        """A number in steps without what adding them up has put behind its twelfth decimal."""
        return min(round(value, 12), self.high)


@dataclass(frozen=True)
class Choices:
    """A list of values.

    Attributes:
        values: All of them, each once.
    """

    values: tuple[Value, ...]

    @property
    def to_check(self) -> tuple[Value, ...]:
        """The values that show whether all are legal."""
        return self.values


@dataclass(frozen=True)
class Space:
    """What a search may try.

    Attributes:
        axes: Pipeline parameter, `stage.hyperparameter`, or `plan` -> its values; those of `plan` are names.
        plans: Name of a plan -> the plan.
        places: Axis -> where it was given, for messages.
    """

    axes: Mapping[str, Choices | Range]
    plans: Mapping[str, LayerPlan] = field(default_factory=dict)
    places: Mapping[str, str] = field(default_factory=dict, compare=False)

    def points(self) -> list[Configuration] | None:
        """Every configuration, the last axis running fastest; None where they are too many to list."""
        lists = [axis.values for axis in self.axes.values() if axis.values is not None]
        if len(lists) < len(self.axes) or math.prod(map(len, lists)) > MOST_POINTS:
            return None
        return [dict(zip(self.axes, values, strict=True)) for values in itertools.product(*lists)]

    def holds(self, configuration: Mapping[str, Value]) -> bool:
        """Whether a configuration lies in the space."""
        return all(_holds(axis, configuration[name]) for name, axis in self.axes.items())

    def as_yaml(self) -> dict[str, Any]:
        """What could have been written: axis -> list, or range; `plan` -> the plans."""
        written = {
            name: list(axis.values) if isinstance(axis, Choices) else axis.model_dump(exclude_defaults=True)
            for name, axis in self.axes.items()
        }
        plans = {name: plan.model_dump(exclude_defaults=True) for name, plan in self.plans.items()}
        return written | ({PLAN: plans} if plans else {})


def parse_space(text: str, source: str = "space") -> Space:
    """Reads a space; whether its axes exist and their values are legal is for whoever knows the pipeline.

    Args:
        text: YAML.
        source: Where it comes from, for messages.

    Raises:
        CollaboptError: It is not a valid space, or an empty one; the message names keys and lines.
    """
    values, lines = read_yaml(text, source, "the space", _EXAMPLE_LINE)
    if not values:
        raise CollaboptError("the space is empty", where=source, todo=f"name an axis, for example `{_EXAMPLE_LINE}`")
    axes: dict[str, Choices | Range] = {}
    plans: dict[str, LayerPlan] = {}
    places: dict[str, str] = {}
    for name, given in values.items():
        places[str(name)] = place_of(source, (name,), lines)
        if name == PLAN:
            plans = parse_plans(given, source, lines)
            axes[PLAN] = Choices(tuple(plans))
        else:
            axes[str(name)] = _axis(str(name), given, source, places[str(name)], lines)
    return Space(axes, plans, places)


def read_space(path: Path) -> Space:
    """Reads a space from a YAML file in UTF-8; see `parse_space`.

    Raises:
        CollaboptError: The file cannot be read or does not hold a valid space.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text in UTF-8"
        raise CollaboptError(
            f"the space cannot be read: {reason}", where=str(path), todo=f"pass a YAML file with `{_EXAMPLE_LINE}`"
        ) from error
    return parse_space(text, str(path))


def _axis(name: str, given: object, source: str, place: str, lines: Mapping[tuple[str, ...], int]) -> Choices | Range:
    if isinstance(given, dict):
        return validated(
            Range,
            {key: _as_number(value) for key, value in given.items()},
            what=f"axis '{name}'",
            source=source,
            place_of=lambda path: place_in((name, *path), lines),
            legal=lambda _: _FORMS,
        )
    if not isinstance(given, list):
        raise CollaboptError(f"axis '{name}' is neither a list nor a range", where=place, todo=_FORMS)
    if not given:
        raise CollaboptError(f"axis '{name}' has no value", where=place, todo=_FORMS)
    values: list[Value] = []
    for value in map(_as_number, given):
        if not isinstance(value, Value) or (isinstance(value, float) and not math.isfinite(value)):
            raise CollaboptError(f"axis '{name}': {value!r} is no value", where=place, todo=_FORMS)
        if value in values:
            raise CollaboptError(f"axis '{name}' has {value!r} twice", where=place, todo="keep one of them")
        values.append(value)
    return Choices(tuple(values))


def _as_number(value: object) -> object:
    """YAML 1.1 takes 1e-4 for a word."""
    if not isinstance(value, str):
        return value
    try:
        return float(value)
    except ValueError:
        return value


def _holds(axis: Choices | Range, value: Value) -> bool:
    if isinstance(axis, Choices):
        return value in axis.values
    if not isinstance(value, int | float) or not axis.low <= value <= axis.high:
        return False
    if axis.step is None:
        return True
    steps = (value - axis.low) / axis.step
    return math.isclose(steps, round(steps), rel_tol=0, abs_tol=1e-9)
