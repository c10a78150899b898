"""`collabopt search`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.cli_options import (
    DEFAULT_OUTPUT,
    DEFAULT_RELEASES,
    Example,
    LocalData,
    LocalModel,
    LocalReleases,
    Name,
    OutputDirectory,
    Parameters,
    Pipeline,
    Plan,
    Settings,
    Task,
    sources,
)

_WIDTH_WITHOUT_TERMINAL = 140


def search(
    example: Example = None,
    model: LocalModel = None,
    data: LocalData = None,
    task: Task = None,
    space: Annotated[
        Path | None, typer.Option(metavar="FILE", help="What to try, as YAML: sparsity: [0.5, 0.8], ...")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Configurations to try, the default one included; 12.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of training over all stages; default: no limit.")] = None,
    minutes: Annotated[
        float | None, typer.Option(help="Wall time after which no more trials begin; default: no limit.")
    ] = None,
    policy: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Policy of the gate (YAML). Without: beat the default configuration."),
    ] = None,
    pipeline: Pipeline = "exhaustive",
    output: OutputDirectory = DEFAULT_OUTPUT,
    settings: Settings = None,
    parameters: Parameters = None,
    plan: Plan = None,
    name: Name = None,
    releases: LocalReleases = DEFAULT_RELEASES,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Search for the configuration that a model bears best; the same command goes on where it was interrupted."""
    model, data = sources(example, model, data)
    from rich.console import Console

    from collabopt.pipelines.following_up import mark_failed, print_whereabouts
    from collabopt.pipelines.search_plan import plan_search
    from collabopt.pipelines.search_summary import print_search
    from collabopt.pipelines.searching import run_search

    planned = plan_search(
        model=model,
        data=data,
        output=output,
        pipeline=pipeline,
        space=space,
        trials=trials,
        epochs=epochs,
        minutes=minutes,
        task=task,
        policy=policy,
        name=name,
        releases=releases,
        settings=settings or (),
        parameters=parameters or (),
        plan=plan,
    )
    width = None if sys.stdout.isatty() else _WIDTH_WITHOUT_TERMINAL
    console = Console(highlight=False, width=width, stderr=as_json)
    try:
        summary = run_search(planned, console, on_failure=mark_failed)
    except KeyboardInterrupt:
        print("interrupted; the same command goes on", file=sys.stderr)
        raise
    if as_json:
        print(summary.model_dump_json(indent=2))
    else:
        print_search(console, summary)
    print_whereabouts(console, planned.run)
    if summary.failed:
        raise CollaboptError(summary.outcome, where=str(output), todo="relax the policy, or search elsewhere")
