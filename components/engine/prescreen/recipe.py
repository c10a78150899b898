"""What a predicted file depends on, read off the way that leads to its leaf."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.settings import Palette, Settings, TrainingSettings, settings_for

# The pipeline parameters that change the structure of the weights; all others change only what is learned.
AXES = ("sparsity", "clusters")

# Stages from right below the baseline down to a leaf, which is included: (stage, technique).
Way = Sequence[tuple[str, str]]
Configuration = dict[str, int | float]


@dataclass(frozen=True)
class Recipe:
    """How a file is made without training. Leaves of one recipe have one predicted file.

    Attributes:
        interiors: (technique, settings) of what is done to the fp32 weights, in this order; how they are trained has
            its defaults.
        palette: As the leaf's settings have it.
        representative_samples: Samples that the file is calibrated with.
        accelerator: NPU that its footprint is estimated for.
    """

    interiors: tuple[tuple[str, Settings], ...]
    palette: Palette
    representative_samples: int
    accelerator: str

    @property
    def name(self) -> str:
        """Names everything that the bytes of the file depend on."""
        steps = [[technique, settings.model_dump(mode="json")] for technique, settings in self.interiors]
        content = json.dumps([steps, self.palette, self.representative_samples], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def recipe_of(
    way: Way,
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
    accelerator: str | None = None,
) -> Recipe:
    """The recipe of a leaf.

    Args:
        way: The stages that lead to it.
        parameters: Pipeline parameter -> value; those that change only what is learned may be left out.
        overrides: Stage -> hyperparameter -> value.
        accelerator: NPU that the footprint is estimated for; None for the one of the leaf's settings.

    Raises:
        CollaboptError: A setting is not legal; the message names the stage.
    """
    steps = [
        (technique, settings_for(technique, {**_given(technique, parameters), **overrides.get(stage, {})}, stage))
        for stage, technique in way
    ]
    return recipe_with(steps, accelerator)


def recipe_with(steps: Iterable[tuple[str, Settings]], accelerator: str | None = None) -> Recipe:
    """The recipe of a leaf.

    Args:
        steps: (technique, settings) from right below the baseline to the leaf.
        accelerator: See `recipe_of`.
    """
    *interiors, (_, leaf) = steps
    given = leaf.model_dump()
    return Recipe(
        tuple((technique, _untrained(settings)) for technique, settings in interiors),
        given.get("palette", "tensor"),  # where a technique has no choice, nothing on its way is clustered
        given["representative_samples"],
        accelerator or given["accelerator"],
    )


def _untrained(settings: Settings) -> Settings:
    trained = {name: field.default for name, field in TrainingSettings.model_fields.items() if name != "seed"}
    return settings.model_copy(update=trained)


def _given(technique: str, parameters: Mapping[str, Any]) -> dict[str, Any]:
    bound = BINDINGS[technique].items()
    return {field: parameters[parameter] for field, parameter in bound if parameter in parameters}


def configuration_of(steps: Iterable[tuple[str, Mapping[str, Any]]]) -> Configuration:
    """What the axes are on a way: axis -> value, of those alone that something on it listens to.

    Args:
        steps: (technique, hyperparameters) from the baseline to the leaf.
    """
    return {
        parameter: settings[field]
        for technique, settings in steps
        for field, parameter in BINDINGS.get(technique, {}).items()
        if parameter in AXES
    }


def recipes_over(
    ways: Mapping[str, Way],
    grid: Mapping[str, Sequence[int | float]],
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
    accelerator: str | None = None,
) -> dict[str, dict[Recipe, Configuration]]:
    """Every recipe that a grid makes for every leaf: a leaf that an axis does not touch has one for all its values.

    Args:
        ways: Leaf -> the stages that lead to it.
        grid: Axis -> its values.
        parameters: Pipeline parameter -> value, for everything else.
        overrides: Stage -> hyperparameter -> value; they take precedence over the grid.
        accelerator: NPU that all footprints are estimated for; None for the one of each leaf's settings.

    Returns:
        Leaf -> recipe -> its configuration, in the order of the grid.

    Raises:
        CollaboptError: A setting is not legal; the message names the stage.
    """
    points = [dict(zip(grid, values, strict=True)) for values in product(*grid.values())]
    return {
        leaf: {
            recipe: configuration_of([(technique, vars(settings)) for technique, settings in recipe.interiors])
            for recipe in (recipe_of(way, {**parameters, **point}, overrides, accelerator) for point in points)
        }
        for leaf, way in ways.items()
    }
