"""The `collabopt` command."""

import importlib.metadata
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines import cli_compile, cli_prescreen, cli_search, cli_sensitivity, cli_submit
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
    Policy,
    Settings,
    Task,
    sources,
)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help="TensorFlow's collaborative-optimization tree as Kubeflow Pipelines.",
)

app.command("prescreen")(cli_prescreen.prescreen)
app.command("sensitivity")(cli_sensitivity.sensitivity)
app.command("search")(cli_search.search)
app.command("compile", rich_help_panel=cli_submit.KUBEFLOW)(cli_compile.compile_command)
app.command("cluster-schema", rich_help_panel=cli_submit.KUBEFLOW)(cli_compile.print_schema)
app.command("submit", rich_help_panel=cli_submit.KUBEFLOW)(cli_submit.submit)
app.add_typer(cli_submit.schedule_app, name="schedule", rich_help_panel=cli_submit.KUBEFLOW)


def main() -> None:
    """Runs the command; a problem the user can mend ends it with exit code 1 and without a traceback."""
    try:
        app()
    except CollaboptError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"collabopt {importlib.metadata.version('collabopt')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    pass


@app.command("tree")
def tree() -> None:
    """Print the tree: stage, technique, whether it trains, whether it is a leaf, pathway."""
    from rich.console import Console
    from rich.tree import Tree

    from collabopt.pipelines.tree import ROOT, TREE

    nodes = {ROOT: Tree(f"[bold]{ROOT}[/]  import_model")}
    for stage in TREE.stages:
        traits = ["trains"] * stage.trains + ["leaf", TREE.pathway(stage.name)] * stage.leaf
        label = f"[bold]{stage.name}[/]  {stage.technique.name}  [dim]{', '.join(traits)}[/]"
        nodes[stage.name] = nodes[stage.parent].add(label)
    Console(soft_wrap=True, highlight=False).print(nodes[ROOT])


@app.command("run")
def run(
    example: Example = None,
    model: LocalModel = None,
    data: LocalData = None,
    task: Task = None,
    pipeline: Pipeline = "exhaustive",
    policy: Policy = None,
    output: OutputDirectory = DEFAULT_OUTPUT,
    settings: Settings = None,
    parameters: Parameters = None,
    plan: Plan = None,
    name: Name = None,
    releases: LocalReleases = DEFAULT_RELEASES,
) -> None:
    """Run a pipeline on this machine and leave the leaves and the gate's decision in DIR."""
    model, data = sources(example, model, data)
    from rich.console import Console

    from collabopt.pipelines.following_up import mark_failed, print_whereabouts
    from collabopt.pipelines.local_run import run_locally
    from collabopt.pipelines.preflight import plan_run

    planned = plan_run(
        pipeline=pipeline,
        model=model,
        data=data,
        output=output,
        task=task,
        policy=policy,
        name=name,
        releases=releases,
        settings=settings or (),
        parameters=parameters or (),
        plan=plan,
    )
    # Without a terminal rich assumes 80 columns, which the tables do not fit.
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    os.environ["MLFLOW_TRACKING_URI"] = planned.tracking_uri
    try:
        run_locally(planned, console, on_failure=mark_failed)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        raise
    print_whereabouts(console, planned)


_NAME = Annotated[str, typer.Argument(metavar="NAME", help="Name under which winners are registered and released.")]


@app.command("gate")
def gate(
    leaves: Annotated[Path, typer.Option(metavar="DIR", help="Output directory of a finished run.")] = DEFAULT_OUTPUT,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="Policy of the deployment gate (YAML).")] = None,
    name: Annotated[str, typer.Option(help="Name under which the winner is registered and released.")] = "collabopt",
    releases: LocalReleases = DEFAULT_RELEASES,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show the decision; promote and write nothing.")
    ] = False,
) -> None:
    """Decide again over the leaves of a finished run, without training."""
    from rich.console import Console

    from collabopt.pipelines.gate import gate_again

    gate_again(
        leaves,
        policy_file=policy,
        name=name,
        releases=releases,
        dry_run=dry_run,
        console=Console(highlight=False, width=None if sys.stdout.isatty() else 120),
    )


@app.command("releases")
def releases(
    name: _NAME,
    releases: LocalReleases = DEFAULT_RELEASES,
    repair: Annotated[
        bool, typer.Option("--repair", help="First make MLflow's aliases follow, as after a gate that was killed.")
    ] = False,
) -> None:
    """List what has been released under a name: champion, previous, withdrawn."""
    from rich.console import Console

    from collabopt.pipelines.releases import print_releases, repair_releases

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
    if repair:
        repair_releases(name, releases, console)
    print_releases(name, releases, console)


@app.command("rollback")
def rollback(
    name: _NAME,
    releases: LocalReleases = DEFAULT_RELEASES,
    withdraw: Annotated[
        str, typer.Option(metavar="SHA256", help="The champion to withdraw, or the beginning of its digest.")
    ] = "",
) -> None:
    """Withdraw the champion and ship the one before it again."""
    from rich.console import Console

    from collabopt.pipelines.releases import roll_back

    roll_back(name, releases, Console(highlight=False, soft_wrap=True), withdraw)


@app.command("policy-schema")
def policy_schema() -> None:
    """Print the JSON schema of a policy, for editors."""
    import json

    from collabopt.components.engine.policy.policy import policy_schema

    print(json.dumps(policy_schema(), indent=2))


@app.command("inspect")
def inspect(
    file: Annotated[Path, typer.Argument(metavar="FILE.tflite", help="Any TFLite model.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """Show what a .tflite file holds: weights, what its bytes are for, what is left in float."""
    from collabopt.pipelines.inspection import inspect_file, print_inspection

    deployed = inspect_file(file)
    if as_json:
        print(deployed.model_dump_json(indent=2))
        return

    from rich.console import Console

    print_inspection(deployed, Console(highlight=False, width=None if sys.stdout.isatty() else 140))


if __name__ == "__main__":
    main()
