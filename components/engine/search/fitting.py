"""Whether a space fits the tree: its axes exist, somebody listens to them, and every value of theirs is legal."""

import itertools
from collections.abc import Iterable, Mapping
from typing import Any

from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.errors import CollaboptError, unknown
from collabopt.components.engine.search.plans import PLAN, takes_layers, with_layers
from collabopt.components.engine.search.sharing import Place, settings_in
from collabopt.components.engine.search.space import Configuration, Space, Value, parse_space
from collabopt.components.engine.settings import SETTINGS

_NO_MATTER_OF_BETTER = ("seed", "accelerator")
# Pipeline parameters that a search may vary.
PARAMETERS = ("sparsity", "clusters", "epochs", "learning_rate", "qat_epochs", "qat_learning_rate", "batch_size")

# What is searched where nothing is said: what decides size, and how long accuracy is given to come back.
DEFAULT_SPACE = """
sparsity: [0.5, 0.6, 0.7]
clusters: [8, 12, 16]
epochs: [{epochs}, {thrice}, {six_times}]
"""


def default_space(places: Iterable[Place], given: Mapping[str, object], epochs: int) -> Space:
    """The default space, without the axes that nobody listens to or that were given a value.

    Args:
        places: The stages that are grown.
        given: Pipeline parameters that were given on the command line.
        epochs: Epochs of the default configuration.
    """
    heard = {parameter for place in places for parameter in _heard(place)}
    text = DEFAULT_SPACE.format(epochs=epochs, thrice=3 * epochs, six_times=6 * epochs)
    space = parse_space(text, "the default space")
    return Space({name: axis for name, axis in space.axes.items() if name in heard and name not in given})


def check_space(
    space: Space,
    places: Iterable[Place],
    parameters: Mapping[str, Any],
    overrides: Mapping[str, Mapping[str, Any]],
    given: Iterable[str] = (),
) -> None:
    """Checks a space against the stages that are grown.

    Args:
        space: The space.
        places: The stages.
        parameters: Pipeline parameter -> value, of all.
        overrides: Stage -> hyperparameter -> value.
        given: Pipeline parameters that were given on the command line.

    Raises:
        CollaboptError: An axis is unknown, contradicts what was given, or nobody listens to it, or a value is illegal;
            the message names axis, line and stage.
    """
    places = list(places)
    if not space.axes:
        heard = [name for name in PARAMETERS if name not in given and any(name in _heard(place) for place in places)]
        raise CollaboptError(
            "the space is empty: the stages that are grown take none of the default one's axes, or all have a value",
            where="space",
            todo=f"name one of {', '.join(heard)} in --space",
        )
    by_name = {place.name: place for place in places}
    for axis in space.axes:
        where = space.places.get(axis, axis)
        if "." in axis:
            _check_own(axis, by_name, overrides, where)
        elif axis == PLAN:
            _check_plan(space, places, overrides, where)
        elif axis not in PARAMETERS:
            raise unknown(f"unknown axis '{axis}'", axis, (*PARAMETERS, PLAN, *by_name), where)
        elif axis in given:
            raise CollaboptError(
                f"'{axis}' is an axis and has a value already, --param {axis}={parameters[axis]}",
                where=where,
                todo="keep one",
            )
        elif not any(_hears(place, axis, space, overrides) for place in places):
            raise CollaboptError(
                f"no stage listens to '{axis}': none that is grown has it, or each has a value of its own",
                where=where,
                todo="leave the axis out, or grow a pipeline with such a stage",
            )
    for place in places:
        _check_values(place, space, parameters, overrides)


def _check_own(axis: str, places: Mapping[str, Place], overrides: Mapping[str, Mapping[str, Any]], where: str) -> None:
    stage, _, name = axis.partition(".")
    if stage not in places:
        raise unknown(f"axis '{axis}': no stage '{stage}' is grown", stage, places, where)
    if name in _NO_MATTER_OF_BETTER:
        raise CollaboptError(
            f"axis '{axis}': {name} is no matter of better or worse", where=where, todo=f"choose it: --param {name}=..."
        )
    legal = SETTINGS[places[stage].technique].model_fields
    if name not in legal:
        raise unknown(f"axis '{axis}': stage '{stage}' has no parameter '{name}'", name, legal, where)
    if name in overrides.get(stage, {}):
        raise CollaboptError(
            f"'{axis}' is an axis and has a value already, --set {axis}={overrides[stage][name]}",
            where=where,
            todo="keep one",
        )


def _check_plan(space: Space, places: Iterable[Place], overrides: Mapping[str, Mapping[str, Any]], where: str) -> None:
    heard = [place.name for place in places if takes_layers(place)]
    if not heard:
        raise CollaboptError(
            f"no stage listens to '{PLAN}': none that is grown prunes or clusters",
            where=where,
            todo="leave the axis out, or grow a pipeline with such a stage",
        )
    for name in heard:
        if "layers" in overrides.get(name, {}) or f"{name}.layers" in space.axes:
            raise CollaboptError(
                f"'{PLAN}' is an axis, and the layers of '{name}' have settings already",
                where=where,
                todo="keep one: the axis, or --plan and --set",
            )


def _heard(place: Place) -> Iterable[str]:
    """Pipeline parameters that a stage takes."""
    return BINDINGS[place.technique].values()


def _hears(place: Place, axis: str, space: Space, overrides: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a stage takes the pipeline parameter, and has neither a value nor an axis of its own for it."""
    names = [name for name, parameter in BINDINGS[place.technique].items() if parameter == axis]
    return any(f"{place.name}.{name}" not in space.axes and name not in overrides.get(place.name, {}) for name in names)


def _check_values(
    place: Place, space: Space, parameters: Mapping[str, Any], overrides: Mapping[str, Mapping[str, Any]]
) -> None:
    """Every combination of the values that this stage gets to see; of ranges, their ends."""
    own = [axis for axis in space.axes if axis.startswith(f"{place.name}.")]
    if takes_layers(place) and PLAN in space.axes:
        own.append(PLAN)
    axes = [axis for axis in space.axes if axis in own or _hears(place, axis, space, overrides)]
    for values in itertools.product(*(space.axes[axis].to_check for axis in axes)):
        point: Configuration = dict(zip(axes, values, strict=True))
        try:
            settings_in(with_layers(point, space.plans, [place]), place, parameters, overrides)
        except CollaboptError as error:
            raise CollaboptError(
                f"the space holds what stage '{place.name}' cannot run with, {_in_words(point)}: {error.what}",
                where="; ".join(space.places.get(axis, axis) for axis in axes),
                todo=error.todo,
            ) from error


def _in_words(point: Mapping[str, Value]) -> str:
    return ", ".join(f"{axis}={value}" for axis, value in point.items())
