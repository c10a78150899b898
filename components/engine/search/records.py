"""What a search has found: `state.json` while it goes on, and in the end `search.json`, the summary."""

from datetime import datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.search.budget import Budget, Used
from collabopt.components.engine.whole_file import written_whole

STATE_FILE = "state.json"
SUMMARY_FILE = "search.json"
# The policy that was searched by, so that the gate can decide again by it.
POLICY_FILE = "search-policy.yaml"
SEARCH_FILES = (SUMMARY_FILE, POLICY_FILE)


class _Frozen(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SearchState(_Frozen):
    """What an interrupted search needs to go on, beside its trials and the stages on disk.

    Attributes:
        schema_version: Version of this layout.
        origin: Everything that must be the same for the search to go on: what is asked for -> how it was given.
        run_id: Id of the pipeline run that all its waves belong to.
        budget: What it may cost, as it was last given.
        policy: The policy in effect, as YAML; "" as long as it depends on the default configuration, which is not
            trained yet.
        minutes: Wall time so far, counted as that of the budget.
        begun: When the first wave was proposed, where wall time goes on between waves: on a cluster.
        left_out: Name of a stage -> why it is not trained.
    """

    schema_version: int = 1
    origin: dict[str, Any]
    run_id: str
    budget: Budget
    policy: str = ""
    minutes: float = 0.0
    begun: datetime | None = None
    left_out: dict[str, str] = Field(default_factory=dict)


class LeafOfTrial(_Frozen):
    """A leaf as a trial has it.

    Attributes:
        leaf: Its name; another trial's where it is shared.
        validation: The deciding metric on the validation split; None where it was not trained.
        left_out: Why it was not trained; "" where it was.
    """

    leaf: str
    validation: float | None = None
    left_out: str = ""


class TrialSummary(_Frozen):
    """One trial.

    Attributes:
        number: From 0, the default configuration.
        configuration: Axis -> value.
        leaves: Stage of the tree -> the leaf that the trial has there.
    """

    number: int
    configuration: dict[str, Any]
    leaves: dict[str, LeafOfTrial]


class FrontLeaf(_Frozen):
    """A trained leaf that no other dominates, by the gate's figures.

    Attributes:
        leaf: Its name.
        configuration: Of the first trial that has it.
        figures: Its figures on the test split.
        validation: The deciding metric on the validation split.
        qualified: Whether the gate would ship it.
    """

    leaf: str
    configuration: dict[str, Any]
    figures: dict[str, float]
    validation: float | None
    qualified: bool


class SearchSummary(_Frozen):
    """How a search has ended.

    Attributes:
        schema_version: Version of this layout.
        budget: What it was allowed.
        used: What it has cost.
        ended_by: The limit that was reached, or that the space is exhausted.
        trainings: Stages trained.
        trainings_without_sharing: Stages that would have been, had every trial trained its own.
        metric: Name of the deciding metric.
        objectives: Figures of the front; the first is the deciding metric.
        winner: The gate's; None where no leaf qualifies.
        outcome: What the gate decided, in one sentence.
        failed: Whether the policy wants the search to fail over it.
        trials: All of them.
        front: The non-dominated leaves, best metric first.
    """

    schema_version: int = 1
    budget: Budget
    used: Used
    ended_by: str
    trainings: int
    trainings_without_sharing: int
    metric: str
    objectives: list[str]
    winner: str | None
    outcome: str
    failed: bool
    trials: list[TrialSummary]
    front: list[FrontLeaf]


def write_state(state: SearchState, path: Path) -> None:
    """Writes the state; a kill leaves the old one or the new one."""
    with written_whole(path) as written:
        written.write_text(state.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_state(path: Path) -> SearchState | None:
    """Reads a state; None where there is none.

    Raises:
        CollaboptError: The file is not one.
    """
    if not path.is_file():
        return None
    try:
        return SearchState.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise CollaboptError(
            f"the state of the search does not read as one: {error.errors()[0]['msg']}",
            where=str(path),
            todo="it may come from another version of collabopt; pass another --output",
        ) from error


def check_same_origin(before: SearchState, origin: dict[str, Any], budget: Budget, where: str) -> None:
    """Refuses to go on with a search that asked for something else.

    Raises:
        CollaboptError: Space, policy, model, data or anything else that trials depend on differs, or the budget has
            shrunk; the message names all of it.
    """
    differs = [
        f"{name}: {_short(before.origin.get(name))} then, {_short(origin.get(name))} now"
        for name in {**before.origin, **origin}
        if before.origin.get(name) != origin.get(name)
    ]
    for name in Budget.model_fields:
        then, now = getattr(before.budget, name), getattr(budget, name)
        if now is not None and (then is None or now < then):
            differs.append(f"budget of {name}: {then or 'no limit'} then, {now:g} now, and it may only grow")
    if differs:
        raise CollaboptError(
            "another search was begun in this output directory; " + "; ".join(differs),
            where=where,
            todo="ask for the same, pass another --output, or remove the directory if it is not needed",
        )


def _short(value: object) -> str:
    text = "nothing" if value in (None, "", {}) else str(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."
