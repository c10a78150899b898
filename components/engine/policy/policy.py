"""What a leaf must keep to be shipped, and what is then preferred: a few lines of YAML, checked up front."""

import difflib
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

from pydantic import BeforeValidator, ConfigDict, Field, field_validator, model_validator

from collabopt.components.engine.deployed.accelerators import Accelerator
from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.policy.amounts import Amount, Number
from collabopt.components.engine.policy.figures import FIGURES
from collabopt.components.engine.validation import Checked, list_as_tuple, refuse, validated
from collabopt.components.engine.validation import Path as KeyPath
from collabopt.components.engine.yaml_lines import place_in, read_yaml

if TYPE_CHECKING:
    from collabopt.components.engine.training.task import Task

METRIC = "metric"
Kind = Literal["threshold", "max_drop", "max_ratio", "min_improvement"]
Against = Literal["baseline", "champion"]

KINDS: tuple[Kind, ...] = get_args(Kind)
_EXAMPLE_LINE = "when_none_qualifies: keep"


def _is_higher_better(figure: str, given: bool | None) -> bool | None:
    return FIGURES[figure].higher_is_better if figure in FIGURES else given


def _check_direction(figure: str, given: bool | None) -> None:
    if figure == METRIC and given is not None:
        refuse("the task says which way its deciding metric is better; leave it out", "higher_is_better")
    if figure in FIGURES and given not in (None, FIGURES[figure].higher_is_better):
        refuse(f"of '{figure}' {'more' if not given else 'less'} is better; leave it out", "higher_is_better")
    if figure != METRIC and figure not in FIGURES and given is None:
        close = difflib.get_close_matches(figure, [METRIC, *FIGURES], n=1)
        hint = f" (did you mean '{close[0]}'?)" if close else ""
        refuse(
            f"is no figure that every leaf has{hint}; if it is another metric of the task, say higher_is_better: true "
            "or false",
            "figure",
        )


class _OfFigure(Checked):
    figure: str = Field(
        min_length=1,
        description="`metric` for the task's deciding metric, another metric of the task, or one of: "
        + ", ".join(FIGURES),
    )
    higher_is_better: bool | None = Field(
        default=None,
        description="Which way the figure is better. Needed for other metrics of the task than the deciding one.",
    )


class Goal(_OfFigure):
    """One limit that a leaf must keep. Exactly one of `threshold`, `max_drop`, `max_ratio` and `min_improvement`."""

    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [{"required": [kind], "properties": {kind: {"not": {"type": "null"}}}} for kind in KINDS]
        }
    )

    threshold: Number | None = Field(
        default=None, description="The most of a figure that is better low, the least of one that is better high."
    )
    max_drop: Amount | None = Field(
        default=None, description="How much worse than the reference it may be: in its own unit, or as 2% of it."
    )
    max_ratio: Number | None = Field(
        default=None, description="The most it may be as a multiple of the reference; for figures that are better low."
    )
    min_improvement: Amount | None = Field(
        default=None, description="How much better than the reference it must be: in its own unit, or as 5% of it."
    )
    against: Against | None = Field(
        default=None,
        description="The reference: the fp32 `baseline`, which is the default, or the `champion`, the leaf that is "
        "shipped now. Not for `threshold`.",
    )

    @model_validator(mode="after")
    def _is_one_goal(self) -> "Goal":
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            refuse(f"give exactly one of {', '.join(KINDS)}, not {' and '.join(given) or 'none'}", *given[1:2])
        if self.threshold is not None and self.against is not None:
            refuse("a threshold is compared with nothing; leave `against` out", "against")
        _check_direction(self.figure, self.higher_is_better)
        if self.max_ratio is not None and _is_higher_better(self.figure, self.higher_is_better) is not False:
            refuse("max_ratio is for figures that are better low; write max_drop, which may be a share", "max_ratio")
        if self.threshold is None and self.figure in FIGURES and not FIGURES[self.figure].tells_apart:
            refuse(f"'{self.figure}' compares machines, not leaves; only a threshold makes sense", self.kind)
        if self.threshold is None and self.figure in FIGURES and FIGURES[self.figure].of_update:
            refuse(
                f"'{self.figure}' leads from the champion to the leaf: neither baseline nor champion has it; "
                "only a threshold makes sense",
                self.kind,
            )
        return self

    @property
    def kind(self) -> Kind:
        """Which of the four it is."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def limit(self) -> float | str:
        """The number, or the share as text, that its kind gives."""
        limit: float | str = getattr(self, self.kind)
        return limit

    @property
    def reference(self) -> Against | None:
        """What is compared with; None for a threshold."""
        return None if self.kind == "threshold" else self.against or "baseline"


class Preference(_OfFigure):
    """A figure by which leaves are ranked."""

    within: Amount = Field(
        default=0.0,
        description="Leaves that come this close to the best count as equal, so that the next figure decides.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, value: object) -> object:
        return {"figure": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _ranks(self) -> "Preference":
        _check_direction(self.figure, self.higher_is_better)
        if self.figure in FIGURES and not FIGURES[self.figure].tells_apart:
            refuse(
                f"'{self.figure}' cannot rank leaves: they differ in weights, not in work, and what differs is noise",
                "figure",
            )
        return self


class _NameOrObject:
    """In the schema, a preference may be written as its figure alone."""

    def __get_pydantic_json_schema__(self, core_schema: Any, handler: Any) -> dict[str, Any]:
        return {"anyOf": [{"type": "string"}, handler(core_schema)]}


class Policy(Checked):
    """What qualifies a leaf, which of the qualified ones is shipped, and what happens when there is none."""

    accelerator: Accelerator | None = Field(
        default=None, description="The NPU that npu_* figures are for; null for the one the leaves were measured on."
    )
    goals: Annotated[tuple[Goal, ...], BeforeValidator(list_as_tuple)] = Field(
        default=(Goal(figure=METRIC, max_drop=0.02),), description="What a leaf must keep; all of it."
    )
    priority: Annotated[tuple[Annotated[Preference, _NameOrObject()], ...], BeforeValidator(list_as_tuple)] = Field(
        # Ten bytes of ten thousand are not worth half a point of accuracy.
        default=(Preference(figure="packed_bytes", within="1%"), Preference(figure=METRIC)),
        description="The leaf that is best in the first is shipped; of equally good ones the best in the second, etc.",
        json_schema_extra={"minItems": 1},
    )
    fleet_size: int | None = Field(
        default=None,
        ge=1,
        description="How many devices get an update, for the bytes of the whole rollout; null to leave them out.",
    )
    when_none_qualifies: Literal["keep", "fail"] = Field(
        default="keep", description="`keep` leaves the champion as it is and ends well; `fail` also ends the run."
    )

    @field_validator("priority")
    @classmethod
    def _each_once(cls, priority: tuple[Preference, ...]) -> tuple[Preference, ...]:
        if not priority:
            refuse("must name at least one figure")
        seen: set[str] = set()
        for number, preference in enumerate(priority):
            if preference.figure in seen:
                refuse(f"'{preference.figure}' is there twice", number)
            seen.add(preference.figure)
        return priority


def parse_policy(text: str) -> Policy:
    """Reads a policy.

    Args:
        text: YAML; empty for the default policy, which accepts a drop of 0.02 and ships the best one of the leaves
            that are smallest when packed, within 1 %.

    Raises:
        CollaboptError: It is not a valid policy; the message names keys, lines and what is legal.
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
            f"the policy cannot be read: {reason}",
            where=str(path),
            todo=f"pass a YAML file; there are examples to begin with: {', '.join(example_policies())}",
        ) from error
    return _parse(text, str(path))


def example_policies() -> dict[str, str]:
    """The policies that are shipped, ready to be used or copied: name -> YAML."""
    folder = files("collabopt.components.engine.policy") / "examples"
    found = sorted((entry for entry in folder.iterdir() if entry.name.endswith(".yaml")), key=lambda entry: entry.name)
    return {entry.name.removesuffix(".yaml"): entry.read_text(encoding="utf-8") for entry in found}


def policy_schema() -> dict[str, Any]:
    """The JSON schema of a policy, for editors and other programs."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **Policy.model_json_schema()}


def check_task(policy: Policy, task: "Task") -> None:
    """Refuses a policy that names figures which no leaf of the task has, or has the other way round.

    Raises:
        CollaboptError: A figure is neither one that every leaf has nor a metric of the task, or the policy calls one
            better high that the task wants low, or the other way round.
    """
    metrics = {metric.name: metric.higher_is_better for metric in (task.metric, *task.more_metrics)}
    entries: dict[str, Goal | Preference] = {
        **{f"goals[{number}]": goal for number, goal in enumerate(policy.goals)},
        **{f"priority[{number}]": preference for number, preference in enumerate(policy.priority)},
    }
    for key, entry in entries.items():
        name = entry.figure
        if name == METRIC or name in FIGURES:
            continue
        if name not in metrics:
            raise CollaboptError(
                f"'{name}' is neither a figure that every leaf has nor a metric of the task '{task.name}'",
                where=f"policy, {key}",
                todo=f"metrics of the task: {', '.join(metrics)}; figures: {', '.join([METRIC, *FIGURES])}",
            )
        if entry.higher_is_better != metrics[name]:
            raise CollaboptError(
                f"the policy says higher_is_better: {str(entry.higher_is_better).lower()} of '{name}', "
                "the task says the opposite",
                where=f"policy, {key}",
                todo=f"correct it, or write `figure: {METRIC}` for the task's deciding metric",
            )


def _parse(text: str, source: str) -> Policy:
    values, lines = read_yaml(text, source, "the policy", _EXAMPLE_LINE)
    return validated(
        Policy,
        values,
        what="the policy",
        source=source,
        place_of=lambda path: place_in(path, lines),
        legal=_legal,
    )


def _legal(paths: Sequence[KeyPath]) -> str:
    touched = {str(part) for path in paths for part in path}
    legal = [f"keys of a policy: {', '.join(Policy.model_fields)}"]
    if "goals" in touched:
        legal.append(f"of a goal: {', '.join(Goal.model_fields)}")
    if "priority" in touched:
        legal.append(f"of an entry of priority: {', '.join(Preference.model_fields)}")
    if "figure" in touched:
        legal.append(f"figures: {', '.join([METRIC, *FIGURES])}")
    return "; ".join(legal)
