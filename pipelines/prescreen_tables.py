"""How predictions are shown: a table, a heat map, what a policy leaves, and how far off they are."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from rich.box import SIMPLE
from rich.color import Color
from rich.console import Console
from rich.style import Style
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.prescreen.recipe import AXES
from collabopt.components.engine.prescreen.records import Comparison, Prediction, Prescreen

_SIZES = {"tflite_bytes": "bytes", "gzip_bytes": "gzip", "zip_bytes": "zip", "packed_bytes": "packed"}
_NPU = {
    "npu_latency_ms": "npu ms",
    "npu_sram_bytes": "sram",
    "npu_flash_bytes": "flash",
    "npu_weight_bytes": "weights",
}
_SMALLEST, _LARGEST = (46, 160, 67), (218, 54, 51)


def print_prescreen(console: Console, prescreen: Prescreen) -> None:
    """Prints everything that a prescreen has found.

    Args:
        console: Where to; colours only where it is a terminal.
        prescreen: What to print.
    """
    files = _by_file(prescreen.predictions)
    console.print(_predictions(prescreen, files))
    gaps = {each.npu_gap: None for each in prescreen.predictions if each.npu_gap}
    for gap in gaps:
        console.print(Text(f"no figures on the NPU: {gap}"), soft_wrap=True)
    if sum(len(values) > 1 for values in prescreen.grid.values()):
        down, across = AXES
        title = f"packed bytes of the smallest leaf: {down} downwards, {across} to the right"
        console.print(Text(title, style="bold"), soft_wrap=True)  # wider than the map
        console.print(_heat_map(prescreen))
    for problem in _problems(files):
        console.print(problem)
    if prescreen.comparisons:
        console.print(_comparisons(prescreen.comparisons))
        console.print(Text(f"largest error: {_largest_errors(prescreen.comparisons)}"), soft_wrap=True)


def _by_file(predictions: Sequence[Prediction]) -> list[list[Prediction]]:
    """Predictions that are the same file in the same configuration."""
    groups: dict[tuple[object, ...], list[Prediction]] = defaultdict(list)
    for each in predictions:
        groups[each.sha256, each.infeasible, *each.configuration.items()].append(each)
    return list(groups.values())


def _predictions(prescreen: Prescreen, files: Sequence[Sequence[Prediction]]) -> Table:
    npu = prescreen.predictions[0]
    table = _table(
        f"predicted, without training ({prescreen.files} files for {len(prescreen.predictions)} leaves)",
        "model.tflite raw, gzip -9, zip, and packed (model.tflite.gz); zip of the fp32 file / zip; on "
        f"{npu.accelerator}, as Vela estimates it: one inference, memory, encoded weights",
    )
    table.add_column("leaves")
    for name in (*AXES, *_SIZES.values(), "ratio", *_NPU.values(), "claims"):
        table.add_column(name, justify="right", no_wrap=True)
    if prescreen.policy is not None:
        table.add_column("policy", no_wrap=True)
    for group in files:
        first = group[0]
        row: list[Text | str] = [Text(",\n".join(each.leaf for each in group)), *_configuration(first.configuration)]
        row += [_whole(first.figures.get(name)) for name in _SIZES]
        row += [_ratio(prescreen.baseline, first.figures), _latency(first.figures.get("npu_latency_ms"))]
        row += [_whole(first.figures.get(name)) for name in list(_NPU)[1:]]
        row.append(_claims(first))
        if prescreen.policy is not None:
            row.append(_verdict(first))
        table.add_row(*row)
    return table


def _heat_map(prescreen: Prescreen) -> Table:
    """Packed bytes of the smallest leaf at every point of the grid."""
    down, across = AXES
    table = Table(box=SIMPLE)
    table.add_column("", no_wrap=True)
    for value in prescreen.grid[across]:
        table.add_column(f"{value:g}", justify="right", no_wrap=True)
    cells = {
        (y, x): _smallest(prescreen, {down: y, across: x}) for y in prescreen.grid[down] for x in prescreen.grid[across]
    }
    known = [value for value in cells.values() if value is not None]
    for y in prescreen.grid[down]:
        row = [cells[y, x] for x in prescreen.grid[across]]
        table.add_row(f"{y:g}", *(Text(f" {_whole(value)} ", style=_heat(value, known)) for value in row))
    return table


def _smallest(prescreen: Prescreen, point: Mapping[str, float]) -> float | None:
    """Of the leaves that are grown at a point; an axis with one value, which a stage may replace, tells none apart."""
    varied = {axis for axis, values in prescreen.grid.items() if len(values) > 1}
    sizes = [
        each.figures["packed_bytes"]
        for each in prescreen.predictions
        if "packed_bytes" in each.figures
        and all(axis not in varied or value == point[axis] for axis, value in each.configuration.items())
    ]
    return min(sizes, default=None)


def _heat(value: float | None, values: Sequence[float]) -> Style:
    if value is None:
        return Style()
    least, most = min(values), max(values)
    share = (value - least) / (most - least) if most > least else 0.0
    red, green, blue = (low + (high - low) * share for low, high in zip(_SMALLEST, _LARGEST, strict=True))
    return Style(color="white", bgcolor=Color.from_rgb(red, green, blue).name)


def _problems(files: Sequence[Sequence[Prediction]]) -> list[Table]:
    """What cannot be made, and what cannot meet the policy."""
    tables = []
    for title, reasons in {
        "cannot be made": lambda each: [each.infeasible] if each.infeasible else [],
        "cannot meet the policy, whatever training brings": lambda each: each.missed,
        "does not hold its ancestors' claims": lambda each: [f"{b.layer}: {b.what}" for b in each.contract.broken],
    }.items():
        concerned = [group for group in files if reasons(group[0])]
        if concerned:
            table = _table(title)
            table.add_column("leaves", no_wrap=True)
            for axis in AXES:
                table.add_column(axis, justify="right", no_wrap=True)
            table.add_column("reason")
            for group in concerned:
                names, reason = ", ".join(each.leaf for each in group), "; ".join(reasons(group[0]))
                table.add_row(Text(names), *_configuration(group[0].configuration), Text(reason))
            tables.append(table)
    return tables


def _comparisons(comparisons: Sequence[Comparison]) -> Table:
    table = _table("predicted and trained", "predicted / of the trained leaf, error of the prediction")
    figures = list(dict.fromkeys(each.figure for each in comparisons))
    table.add_column("leaf", no_wrap=True)
    for name in (*AXES, *figures):
        table.add_column(name, justify="right", no_wrap=True)
    by_leaf: dict[tuple[str, ...], dict[str, Comparison]] = defaultdict(dict)
    for each in comparisons:
        by_leaf[each.leaf, *_configuration(each.configuration)][each.figure] = each
    for key, found in by_leaf.items():
        table.add_row(*key, *(_compared(found.get(name)) for name in figures))
    return table


def _compared(each: Comparison | None) -> str:
    return "-" if each is None else f"{each.predicted:,.0f} / {each.trained:,.0f} {each.error:+6.1%}"


def _largest_errors(comparisons: Sequence[Comparison]) -> str:
    figures = dict.fromkeys(each.figure for each in comparisons)
    largest = {name: max(abs(each.error) for each in comparisons if each.figure == name) for name in figures}
    return ", ".join(f"{name} {error:.1%}" for name, error in largest.items())


def _configuration(configuration: Mapping[str, float]) -> list[str]:
    return [f"{configuration[axis]:g}" if axis in configuration else "-" for axis in AXES]


def _verdict(prediction: Prediction) -> Text:
    if prediction.infeasible:
        return Text("-")
    return Text("cannot", style="red") if prediction.missed else Text("open", style="green")


def _claims(prediction: Prediction) -> Text:
    if prediction.contract.broken:
        return Text("broken", style="bold red")
    return Text("hold" if prediction.contract.layers else "-")


def _ratio(baseline: Mapping[str, float], figures: Mapping[str, float]) -> str:
    return f"{baseline['zip_bytes'] / figures['zip_bytes']:.1f}x" if "zip_bytes" in figures else "-"


def _latency(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _whole(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=Text(title, style="bold"), title_justify="left", caption=caption, caption_justify="left", box=SIMPLE
    )
