"""`collabopt search`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.cli_options import Example, Name, Parameters, Pipeline, Plan, Settings, Task, sources

_WIDTH_WITHOUT_TERMINAL = 140


def search(
    example: Example = None,
    model: Annotated[str | None, typer.Option(help="Trained Keras model: .keras, .h5 or SavedModel.")] = None,
    data: Annotated[str | None, typer.Option(help="Data: npz, TFRecord, a directory of images, or `task`.")] = None,
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
    output: Annotated[Path, typer.Option(metavar="DIR", help="Directory for the result.")] = Path("collabopt-output"),
    settings: Settings = None,
    parameters: Parameters = None,
    plan: Plan = None,
    name: Name = None,
    releases: Annotated[
        str, typer.Option(metavar="URI", help="Where releases are kept: gs://bucket/prefix or a directory.")
    ] = "collabopt-releases",
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> None:
    """Search for the configuration that a model bears best; the same command goes on where it was interrupted."""
    model, data = sources(example, model, data)
    from rich.console import Console

    from collabopt.pipelines.following_up import how_to_see_runs, mark_failed
    from collabopt.pipelines.search_summary import print_search
    from collabopt.pipelines.searching import plan_search, run_search

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
    console.print(f"files: {output}", markup=False, soft_wrap=True)
    console.print(f"report: {output / 'report.html'}", markup=False, soft_wrap=True)
    console.print(f"runs:  {how_to_see_runs(planned.run.tracking_uri)}", markup=False, soft_wrap=True)
    if summary.failed:
        raise CollaboptError(summary.outcome, where=str(output), todo="relax the policy, or search elsewhere")
