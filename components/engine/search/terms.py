"""What a search is about, wherever its trials run."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from collabopt.components.engine.search.budget import Budget, check_budget
from collabopt.components.engine.search.fitting import check_space, default_space
from collabopt.components.engine.search.plans import NO_PLAN, PLAN, with_layers
from collabopt.components.engine.search.sharing import Place, TrialStages, plan_stages
from collabopt.components.engine.search.space import Configuration, Space


@dataclass(frozen=True)
class Terms:
    """What a search is about.

    Attributes:
        places: The stages that are grown, parents first.
        parameters: Every pipeline parameter -> its value.
        overrides: Stage -> hyperparameter -> value.
        space: What may be proposed.
        budget: What it may cost.
    """

    places: tuple[Place, ...]
    parameters: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, Any]]
    space: Space
    budget: Budget

    @property
    def default(self) -> Configuration:
        """The default configuration: the axes with the values that a run would have."""
        given: Configuration = {}
        for axis in self.space.axes:
            if axis == PLAN:
                given[axis] = NO_PLAN
                continue
            stage, dot, name = axis.partition(".")
            place = next((place for place in self.places if place.name == stage), None)
            if dot and place is not None:
                given[axis] = self.stages([{}])[0][stage].settings[name]
            else:
                given[axis] = self.parameters[axis]
        return given

    @property
    def epochs_of_default(self) -> int:
        """Epochs of the default configuration, over all stages that train."""
        return sum(stage.epochs for stage in self.stages([self.default])[0].values())

    def stages(self, trials: Iterable[Configuration]) -> list[TrialStages]:
        """The stages of trials, shared ones under one name."""
        expanded = (with_layers(trial, self.space.plans, self.places) for trial in trials)
        return plan_stages(expanded, self.places, self.parameters, self.overrides)


def terms_of(
    places: Iterable[Place],
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
    space: Space | None,
    budget: Budget,
    given: Mapping[str, object] | None = None,
) -> Terms:
    """What a search is about, all of it checked.

    Args:
        places: The stages that are grown, parents first.
        parameters: Every pipeline parameter -> its value.
        overrides: Stage -> hyperparameter -> value.
        space: What may be proposed; None for the default space.
        budget: What it may cost.
        given: Pipeline parameters that were given a value, and so are no axes.

    Raises:
        CollaboptError: Space, budget or a setting is not legal.
    """
    places, given = tuple(places), given or {}
    wanted = default_space(places, given, int(parameters["epochs"])) if space is None else space
    check_space(wanted, places, parameters, overrides, given)
    terms = Terms(places, parameters, overrides, wanted, budget)
    check_budget(budget, terms.epochs_of_default)
    return terms
