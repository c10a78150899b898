"""What trials share: a stage with the same settings on the same parent is the same stage, and is trained once.

A shared stage is named after the first trial that has it, so that names follow from the trials and their order alone.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.search.space import Configuration
from collabopt.components.engine.settings import settings_for
from collabopt.components.engine.stage_names import name_in_trial
from collabopt.components.engine.techniques import TECHNIQUES


@dataclass(frozen=True)
class Place:
    """A stage of the tree, as the engine needs to know it.

    Attributes:
        name: Its name.
        parent: Name of its parent; that of the baseline at the top.
        technique: Name of its technique.
    """

    name: str
    parent: str
    technique: str


@dataclass(frozen=True)
class PlannedStage:
    """A stage as one or more trials have it.

    Attributes:
        name: `stage@trial`, of the first trial that has it.
        place: Where it stands in the tree.
        parent: Name of the planned stage that it stands on; that of the baseline at the top.
        settings: Every hyperparameter that it runs with.
    """

    name: str
    place: Place
    parent: str
    settings: Mapping[str, Any]

    @property
    def trains(self) -> bool:
        """Whether weights are fine-tuned."""
        return TECHNIQUES[self.place.technique].trains

    @property
    def is_leaf(self) -> bool:
        """Whether the outcome can be deployed."""
        return TECHNIQUES[self.place.technique].deploys

    @property
    def epochs(self) -> int:
        """Epochs of its training; 0 where it does not train."""
        return int(self.settings["epochs"]) if self.trains else 0


# Stage of the tree -> the planned stage that a trial has there.
TrialStages = dict[str, PlannedStage]


def plan_stages(
    trials: Iterable[Configuration],
    places: Sequence[Place],
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
) -> list[TrialStages]:
    """The stages of every trial, shared ones under one name.

    Args:
        trials: Configurations, in the order in which they were proposed.
        places: The tree, parents first.
        parameters: Pipeline parameter -> value, for all that a configuration leaves open.
        overrides: Stage -> hyperparameter -> value, likewise.

    Raises:
        CollaboptError: A setting is not legal; the message names the stage.
    """
    known: dict[str, PlannedStage] = {}
    planned = []
    for number, configuration in enumerate(trials):
        stages: TrialStages = {}
        for place in places:
            parent = stages[place.parent].name if place.parent in stages else place.parent
            settings = settings_in(configuration, place, parameters, overrides)
            key = json.dumps([place.name, parent, settings], sort_keys=True)
            stage = PlannedStage(name_in_trial(place.name, number), place, parent, settings)
            stages[place.name] = known.setdefault(key, stage)
        planned.append(stages)
    return planned


def settings_in(
    configuration: Configuration,
    place: Place,
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """Every hyperparameter of a stage in a trial: of the pipeline, then of the stage, an axis before what is given.

    Raises:
        CollaboptError: One is not legal.
    """
    shared = {name: {**parameters, **configuration}[of] for name, of in BINDINGS[place.technique].items()}
    prefix = f"{place.name}."
    own = {axis.removeprefix(prefix): value for axis, value in configuration.items() if axis.startswith(prefix)}
    values = {**shared, **overrides.get(place.name, {}), **own}
    return settings_for(place.technique, values, place.name).model_dump()


def trainings(stages: Iterable[PlannedStage]) -> int:
    """How many of these stages train."""
    return sum(stage.trains for stage in stages)
