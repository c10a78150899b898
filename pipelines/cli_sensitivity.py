"""`collabopt sensitivity`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from collabopt.pipelines.cli_options import (
    Example,
    LocalData,
    LocalModel,
    Parameters,
    Settings,
    Task,
    sources,
)

_WIDTH_WITHOUT_TERMINAL = 120


def sensitivity(
    example: Example = None,
    model: LocalModel = None,
    data: LocalData = None,
    task: Task = None,
    tolerance: Annotated[
        float, typer.Option(help="Drop that one layer alone may cause, as a share of the baseline.")
    ] = 0.01,
    samples: Annotated[int, typer.Option(min=1, help="Calibration samples to measure on, at most.")] = 500,
    output: Annotated[Path, typer.Option(metavar="FILE", help="Where the plan is written.")] = Path("plan.yaml"),
    settings: Settings = None,
    parameters: Parameters = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Measure what each layer bears alone, without training, and propose settings of single layers."""
    model, data = sources(example, model, data)

    from rich.console import Console

    from collabopt.pipelines.sensitivity import plan_sensitivity, run_sensitivity
    from collabopt.pipelines.sensitivity_tables import print_sensitivity

    planned = plan_sensitivity(
        model=model,
        data=data,
        task=task,
        tolerance=tolerance,
        samples=samples,
        settings=settings or (),
        parameters=parameters or (),
        output=output,
    )
    with Console(stderr=True).status("loading model and data") as status:
        found = run_sensitivity(planned, lambda: status.update("pruning and clustering one layer at a time"))
    if as_json:
        print(found.model_dump_json(indent=2))
        return
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL)
    print_sensitivity(console, found)
    console.print(f"plan: {planned.output}", markup=False, soft_wrap=True)
