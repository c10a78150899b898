"""The axis `plan` of a space: plans of single layers by name, of which every trial has one.

A trial's configuration holds the name alone; what it means for a stage, `with_layers` says.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.layer_plan import LayerPlan, layer_plan
from collabopt.components.engine.yaml_lines import place_of

if TYPE_CHECKING:
    from collabopt.components.engine.search.sharing import Place

PLAN = "plan"
NO_PLAN = "none"
"""The default configuration's: every layer has the settings of its stage."""


def parse_plans(given: object, source: str, lines: Mapping[tuple[str, ...], int]) -> dict[str, LayerPlan]:
    """Reads the plans of a space.

    Args:
        given: Name -> what a plan file would hold.
        source: Where the space comes from, for messages.
        lines: Keys -> line, of the whole space.

    Raises:
        CollaboptError: One is no plan, or `none` is one.
    """
    if not isinstance(given, Mapping) or not given:
        raise CollaboptError(
            f"axis '{PLAN}' gives no plans by name",
            where=place_of(source, (PLAN,), lines),
            todo=f"write {{{NO_PLAN}: {{}}, gentle: {{prune: ..., cluster: ...}}}}, each as in a plan file",
        )
    plans = {str(name): layer_plan(plan, source, (PLAN, str(name)), lines) for name, plan in given.items()}
    if plans.get(NO_PLAN, LayerPlan()) != LayerPlan():
        raise CollaboptError(
            f"axis '{PLAN}': '{NO_PLAN}' says something",
            where=place_of(source, (PLAN, NO_PLAN), lines),
            todo="give that plan another name",
        )
    return plans


def takes_layers(place: "Place") -> bool:
    """Whether plans speak of a stage's technique."""
    return place.technique in LayerPlan.TECHNIQUES


def with_layers(
    configuration: Mapping[str, Any], plans: Mapping[str, LayerPlan], places: "Iterable[Place]"
) -> dict[str, Any]:
    """A configuration with what its plan means for every stage, under `stage.layers`, instead of its name."""
    others = {axis: value for axis, value in configuration.items() if axis != PLAN}
    plan = plans.get(str(configuration.get(PLAN, NO_PLAN)), LayerPlan())
    layers = {f"{place.name}.layers": plan.settings_of(place.technique) for place in places}
    return {**others, **{axis: value for axis, value in layers.items() if value}}
