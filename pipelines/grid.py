"""The values that a prescreen tries: `sparsity=0.5,0.8 clusters=8,16,32`."""

from collections.abc import Iterable, Mapping

from collabopt.components.engine.bindings import BINDINGS
from collabopt.components.engine.errors import CollaboptError, unknown
from collabopt.components.engine.prescreen.recipe import AXES
from collabopt.pipelines.arguments import typed_value
from collabopt.pipelines.tree import TREE

Grid = dict[str, list[int | float]]


def parse_grid(
    texts: Iterable[str],
    defaults: Mapping[str, object],
    given: Mapping[str, object],
    overrides: Mapping[str, Mapping[str, object]],
) -> Grid:
    """Reads the axes of a grid.

    Args:
        texts: `axis=value,value,...` each.
        defaults: Every parameter of the pipeline with its default, which also gives its type.
        given: Pipeline parameters that were given; they are the one value of an axis that is not in the grid.
        overrides: Stage -> hyperparameter -> value.

    Returns:
        Every axis -> its values, in the order given.

    Raises:
        CollaboptError: An axis is unknown, empty or given twice, a value is repeated or of another type, or the grid
            contradicts what else was given.
    """
    grid: Grid = {}
    for text in texts:
        axis, equals, values = text.partition("=")
        where = f"--grid {text}"
        if not (axis and equals):
            raise CollaboptError(
                f"'{text}' does not read as an axis", where=where, todo="write --grid AXIS=VALUE,VALUE"
            )
        if axis not in AXES:
            raise _no_axis(axis, defaults, where)
        if axis in grid:
            raise CollaboptError(f"the axis '{axis}' is given twice", where=where, todo="write its values in one list")
        grid[axis] = _values(values, defaults[axis], where)
        _check_consistent(axis, given, overrides, where)
    single = {axis: [given.get(axis, defaults[axis])] for axis in AXES if axis not in grid}
    return {axis: {**single, **grid}[axis] for axis in AXES}  # type: ignore[misc]


def _no_axis(axis: str, parameters: Mapping[str, object], where: str) -> CollaboptError:
    if axis in parameters:
        return CollaboptError(
            f"'{axis}' changes what is learned, not what a file weighs, so there is nothing to predict",
            where=where,
            todo=f"axes: {', '.join(AXES)}",
        )
    return unknown(f"there is no axis '{axis}'", axis, AXES, where)


def _values(text: str, default: object, where: str) -> list[int | float]:
    texts = [part.strip() for part in text.split(",")]
    if not all(texts):
        raise CollaboptError("the axis has no value, or an empty one", where=where, todo="write AXIS=VALUE,VALUE")
    values = [typed_value(part, default, where) for part in texts]
    twice = next((value for number, value in enumerate(values) if value in values[:number]), None)
    if twice is not None:
        raise CollaboptError(f"{twice} is there twice", where=where, todo="keep one of them")
    return values  # type: ignore[return-value]


def _check_consistent(
    axis: str, given: Mapping[str, object], overrides: Mapping[str, Mapping[str, object]], where: str
) -> None:
    if axis in given:
        raise CollaboptError(
            f"'{axis}' has a value already, --param {axis}={given[axis]}", where=where, todo="keep one"
        )
    for stage in TREE:
        for field, parameter in BINDINGS[stage.technique.name].items():
            if parameter == axis and field in overrides.get(stage.name, {}):
                raise CollaboptError(
                    f"stage '{stage.name}' has a {field} of its own, which the grid would not change",
                    where=f"{where} --set {stage.name}.{field}={overrides[stage.name][field]}",
                    todo="leave one of them out",
                )
