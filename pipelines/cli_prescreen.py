"""`collabopt prescreen`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from collabopt.pipelines.cli_options import (
    Example,
    LocalData,
    LocalModel,
    Parameters,
    Plan,
    Settings,
    Task,
    sources,
)

_WIDTH_WITHOUT_TERMINAL = 150


def prescreen(
    more_axes: Annotated[
        list[str] | None, typer.Argument(metavar="AXIS=VALUE,...", help="More axes of the grid.", show_default=False)
    ] = None,
    example: Example = None,
    model: LocalModel = None,
    data: LocalData = None,
    task: Task = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(metavar="AXIS=VALUE,...", help="Values to try: sparsity=0.5,0.8 clusters=8,16,32; repeatable."),
    ] = None,
    policy: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Policy of the gate: say which leaves can still meet it.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Output directory of a run: compare its leaves.")
    ] = None,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the predictions are kept.")] = Path(
        "prescreen.json"
    ),
    settings: Settings = None,
    parameters: Parameters = None,
    plan: Plan = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Predict what every leaf will weigh and cost on an NPU, in seconds and without training."""
    if more_axes and not grid:
        raise typer.BadParameter(f"what is '{more_axes[0]}'? write --grid before the axes")
    model, data = sources(example, model, data)

    from rich.console import Console

    from collabopt.pipelines.prescreen_tables import print_prescreen
    from collabopt.pipelines.prescreening import plan_prescreen, run_prescreen

    planned = plan_prescreen(
        model=model,
        data=data,
        task=task,
        grid=[*(grid or ()), *(more_axes or ())],
        settings=settings or (),
        parameters=parameters or (),
        plan=plan,
        policy=policy,
        against=against,
        output=output,
    )
    with Console(stderr=True).status("loading model and data") as status:
        found = run_prescreen(planned, lambda done, of: status.update(f"predicting: {done} of {of} files"))
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    print_prescreen(console, found)
    console.print(f"predictions: {planned.output}", markup=False, soft_wrap=True)
