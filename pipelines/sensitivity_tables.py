"""How a sensitivity scan is shown: layers by values, coloured by what they cost, and what is proposed."""

from collections.abc import Sequence

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.sensitivity.proposal import within
from collabopt.components.engine.sensitivity.records import LayerSensitivity, Sensitivity, Trial


def print_sensitivity(console: Console, found: Sensitivity) -> None:
    """Prints what each layer costs alone, and the plan.

    Args:
        console: Where to; colours only where it is a terminal.
        found: What to print.
    """
    of = f" of {found.calibration_samples:,}" if found.samples < found.calibration_samples else ""
    console.print(
        Text(
            f"{found.metric} {found.baseline:.4g} on the first {found.samples:,}{of} calibration samples, fp32, no "
            f"training; one layer is changed at a time. Tolerance: {found.tolerance:.2%} of it."
        ),
        soft_wrap=True,
    )
    for title, section, trials in (
        ("drop when pruned to a sparsity, % of the baseline", found.plan.prune, [e.pruned for e in found.layers]),
        ("drop when clustered to a number, % of the baseline", found.plan.cluster, [e.clustered for e in found.layers]),
    ):
        own = {name: _own(value) for name, value in section.items()}
        console.print(_table(title, found.layers, trials, own, found.tolerance))


def _table(
    title: str,
    layers: Sequence[LayerSensitivity],
    trials: Sequence[Sequence[Trial]],
    proposed: dict[str, str],
    tolerance: float,
) -> Table:
    table = Table(title=Text(title, style="bold"), title_justify="left", box=SIMPLE)
    table.add_column("layer")
    table.add_column("weights", justify="right", no_wrap=True)
    table.add_column("share", justify="right", no_wrap=True)
    values = list(dict.fromkeys(trial.value for of_layer in trials for trial in of_layer))
    for value in values:
        table.add_column(f"{value:g}", justify="right", no_wrap=True)
    table.add_column("plan", no_wrap=True)
    for layer, of_layer in zip(layers, trials, strict=True):
        by_value = {trial.value: trial for trial in of_layer}
        table.add_row(
            Text(layer.layer),
            f"{layer.weights:,}",
            f"{layer.share:.1%}",
            *(_cell(by_value.get(value), tolerance) for value in values),
            proposed.get(layer.layer, "-"),
        )
    return table


def _cell(trial: Trial | None, tolerance: float) -> Text:
    if trial is None:
        return Text("-")
    if trial.drop is None:
        return Text("not finite", style="red")
    style = "green" if within(trial, tolerance) else "yellow" if trial.drop <= 5 * tolerance else "red"
    return Text(f"{100 * trial.drop:.1f}", style=style)


def _own(value: object) -> str:
    if isinstance(value, str):
        return value
    return ", ".join(f"{number:g}" for number in vars(value).values())
