"""`collabopt submit` and `collabopt schedule`: pipelines on a cluster."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from collabopt.pipelines.cli_options import (
    ClusterFile,
    ClusterOverrides,
    Example,
    Name,
    Parameters,
    Pipeline,
    Plan,
    Policy,
    Settings,
    Space,
    Task,
    sources,
)

if TYPE_CHECKING:
    from rich.console import Console

KUBEFLOW = "Kubeflow"
WHEN = "When"

Model = Annotated[str | None, typer.Option("--model", metavar="URI", help="Trained Keras model: gs://...")]
Data = Annotated[str | None, typer.Option("--data", metavar="URI", help="Data: gs://..., or `task`.")]
Releases = Annotated[
    str | None,
    typer.Option(
        "--releases",
        metavar="URI",
        help="Where releases are kept: gs://bucket/prefix.",
        show_default="MLflow's registry alone",
    ),
]
Experiment = Annotated[
    str | None,
    typer.Option(
        "--experiment",
        metavar="NAME",
        help="Kubeflow's experiment, made if there is none.",
        show_default="KF_PIPELINES_DEFAULT_EXPERIMENT_NAME, else collabopt",
        rich_help_panel=KUBEFLOW,
    ),
]
ServiceAccount = Annotated[
    str | None,
    typer.Option(
        "--service-account", metavar="NAME", help="Kubernetes service account of the pods.", rich_help_panel=KUBEFLOW
    ),
]
MlflowExperiment = Annotated[
    str | None,
    typer.Option(
        "--mlflow-experiment",
        metavar="NAME",
        help="MLflow experiment, with and without Kubeflow's MLflow plugin.",
        show_default="that of the cluster's settings",
        rich_help_panel=KUBEFLOW,
    ),
]
Cache = Annotated[bool, typer.Option("--cache/--no-cache", help="Whether unchanged stages come from the cache.")]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="URL",
        help="Address of Kubeflow Pipelines.",
        show_default="KF_PIPELINES_ENDPOINT, else in a pod that of its cluster",
        rich_help_panel=KUBEFLOW,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "--namespace",
        "-n",
        envvar="KFP_NAMESPACE",
        help="Your namespace, where Kubeflow has several users.",
        rich_help_panel=KUBEFLOW,
    ),
]
CaCert = Annotated[
    Path | None,
    typer.Option(
        "--ca-cert", metavar="FILE", help="Authorities to trust (PEM), beyond the usual.", rich_help_panel=KUBEFLOW
    ),
]
ScheduleName = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the schedule, or its id.", show_default=False)
]

schedule_app = typer.Typer(
    invoke_without_command=True,
    no_args_is_help=True,
    epilog="Credentials come from the environment: KFP_EXISTING_TOKEN, KFP_COOKIES, KF_PIPELINES_SA_TOKEN_PATH, "
    "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID.",
)


def submit(
    example: Example = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    pipeline: Pipeline = "exhaustive",
    policy: Policy = None,
    settings: Settings = None,
    parameters: Parameters = None,
    plan: Plan = None,
    space: Space = None,
    name: Name = None,
    releases: Releases = None,
    host: Host = None,
    namespace: Namespace = None,
    ca_cert: CaCert = None,
    experiment: Experiment = None,
    run_name: Annotated[str | None, typer.Option(metavar="NAME", help="Name of the run in Kubeflow.")] = None,
    service_account: ServiceAccount = None,
    mlflow_experiment: MlflowExperiment = None,
    cache: Cache = True,
    cluster: ClusterFile = None,
    cluster_overrides: ClusterOverrides = None,
    wait: Annotated[bool, typer.Option("--wait", help="Return when the run has ended; fail if it has failed.")] = False,
) -> None:
    """Run a pipeline on a cluster.

    Credentials come from the environment: KFP_EXISTING_TOKEN, KFP_COOKIES, KF_PIPELINES_SA_TOKEN_PATH,
    KF_PIPELINES_IAP_OAUTH2_CLIENT_ID.
    """
    model, data = sources(example, model, data)
    from collabopt.pipelines.submission import plan_submission

    submission = plan_submission(
        pipeline=pipeline,
        model=model,
        data=data,
        task=task,
        policy=policy,
        name=name,
        releases=releases,
        settings=settings or (),
        parameters=parameters or (),
        plan=plan,
        space=space,
        experiment=experiment,
        service_account=service_account,
        mlflow_experiment=mlflow_experiment,
        cache=cache,
        cluster=cluster,
        cluster_overrides=cluster_overrides or (),
    )
    from collabopt.pipelines.kubeflow import connect
    from collabopt.pipelines.submission import submit as start
    from collabopt.pipelines.submission import wait_for

    kubeflow = connect(host, namespace, ca_cert)
    run_id = start(kubeflow, submission, run_name)
    print(f"run:  {run_id}")
    print(f"link: {kubeflow.link('runs', run_id)}", flush=True)
    if wait:
        wait_for(kubeflow, run_id)
        print("the run has succeeded")


@schedule_app.callback()
def schedule(
    context: typer.Context,
    cron: Annotated[
        str | None,
        typer.Option(
            metavar="EXPRESSION",
            help='Five fields, as "0 3 * * *" for daily at 03:00, or six with the second in front; in the time zone of '
            "the server, by default UTC.",
            rich_help_panel=WHEN,
        ),
    ] = None,
    every: Annotated[
        str | None,
        typer.Option(
            metavar="INTERVAL",
            help="Instead: an interval, as 6h or 1d. The first run is one later.",
            rich_help_panel=WHEN,
        ),
    ] = None,
    start: Annotated[
        str | None, typer.Option(metavar="TIME", help="Nothing runs before; ISO 8601, UTC.", rich_help_panel=WHEN)
    ] = None,
    end: Annotated[
        str | None, typer.Option(metavar="TIME", help="Nothing runs after; ISO 8601, UTC.", rich_help_panel=WHEN)
    ] = None,
    max_concurrency: Annotated[
        int, typer.Option(min=1, max=10, help="How many of its runs may be under way at once.", rich_help_panel=WHEN)
    ] = 1,
    catch_up: Annotated[
        bool,
        typer.Option(
            "--catch-up/--no-catch-up", help="Whether every time that was missed is made up for.", rich_help_panel=WHEN
        ),
    ] = False,
    paused: Annotated[
        bool, typer.Option("--paused", help="Let it wait for `schedule resume`.", rich_help_panel=WHEN)
    ] = False,
    schedule_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Name of the schedule; one of that name is replaced.",
            show_default="that of the model and the pipeline",
            rich_help_panel=WHEN,
        ),
    ] = None,
    example: Example = None,
    model: Model = None,
    data: Data = None,
    task: Task = None,
    pipeline: Pipeline = "exhaustive",
    policy: Policy = None,
    settings: Settings = None,
    parameters: Parameters = None,
    plan: Plan = None,
    space: Space = None,
    name: Name = None,
    releases: Releases = None,
    host: Host = None,
    namespace: Namespace = None,
    ca_cert: CaCert = None,
    experiment: Experiment = None,
    service_account: ServiceAccount = None,
    mlflow_experiment: MlflowExperiment = None,
    cache: Cache = True,
    cluster: ClusterFile = None,
    cluster_overrides: ClusterOverrides = None,
) -> None:
    """Run a pipeline on a cluster by --cron or --every, in the place of a schedule of the same name."""
    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    model, data = sources(example, model, data)
    from datetime import UTC, datetime

    from collabopt.pipelines.submission import plan_submission
    from collabopt.pipelines.triggers import read_trigger

    trigger = read_trigger(cron, every, start, end, datetime.now(UTC))
    submission = plan_submission(
        pipeline=pipeline,
        model=model,
        data=data,
        task=task,
        policy=policy,
        name=name,
        releases=releases,
        settings=settings or (),
        parameters=parameters or (),
        plan=plan,
        space=space,
        experiment=experiment,
        service_account=service_account,
        mlflow_experiment=mlflow_experiment,
        cache=cache,
        cluster=cluster,
        cluster_overrides=cluster_overrides or (),
    )
    from collabopt.pipelines.kubeflow import connect
    from collabopt.pipelines.schedule_view import print_placed
    from collabopt.pipelines.schedules import Wanted, place_schedule

    wanted = Wanted(
        name=schedule_name or f"{submission.model_name}-{pipeline}",
        submission=submission,
        trigger=trigger,
        max_concurrency=max_concurrency,
        catch_up=catch_up,
        paused=paused,
    )
    kubeflow = connect(host, namespace, ca_cert)
    print_placed(_console(), kubeflow, wanted, place_schedule(kubeflow, wanted))


@schedule_app.command("list")
def list_schedules(
    host: Host = None,
    namespace: Namespace = None,
    ca_cert: CaCert = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
) -> None:
    """List the schedules of the namespace."""
    from collabopt.pipelines import schedule_view, schedules
    from collabopt.pipelines.kubeflow import connect

    found = schedules.list_schedules(connect(host, namespace, ca_cert))
    if as_json:
        print(schedule_view.as_json(found))
    else:
        schedule_view.print_schedules(_console(), found)


@schedule_app.command("pause")
def pause(name: ScheduleName, host: Host = None, namespace: Namespace = None, ca_cert: CaCert = None) -> None:
    """Let a schedule start nothing until it is resumed; runs that are under way go on."""
    from collabopt.pipelines.kubeflow import connect
    from collabopt.pipelines.schedules import find_schedules, set_enabled

    kubeflow = connect(host, namespace, ca_cert)
    for found in find_schedules(kubeflow, name):
        set_enabled(kubeflow, found, False)
        print(f"'{found.name}' ({found.id}) is paused")


@schedule_app.command("resume")
def resume(name: ScheduleName, host: Host = None, namespace: Namespace = None, ca_cert: CaCert = None) -> None:
    """Let a schedule go on."""
    from collabopt.pipelines.kubeflow import connect
    from collabopt.pipelines.schedules import find_schedule, set_enabled

    kubeflow = connect(host, namespace, ca_cert)
    found = find_schedule(kubeflow, name)
    set_enabled(kubeflow, found, True)
    print(f"'{found.name}' ({found.id}) is running")


@schedule_app.command("delete")
def delete(
    name: ScheduleName,
    all_of_them: Annotated[bool, typer.Option("--all", help="All of that name, if there are several.")] = False,
    host: Host = None,
    namespace: Namespace = None,
    ca_cert: CaCert = None,
) -> None:
    """Delete a schedule; its runs stay, and those that are under way go on."""
    from collabopt.pipelines.kubeflow import connect
    from collabopt.pipelines.schedules import delete_schedule, find_schedule, find_schedules

    kubeflow = connect(host, namespace, ca_cert)
    for found in find_schedules(kubeflow, name) if all_of_them else [find_schedule(kubeflow, name)]:
        delete_schedule(kubeflow, found)
        print(f"'{found.name}' ({found.id}) is deleted")


def _refuse_options_before(context: typer.Context) -> None:
    """Options of `schedule` itself would be passed over where a command follows."""
    given = [
        parameter
        for parameter in context.command.params
        if parameter.name and str(context.get_parameter_source(parameter.name)).endswith("COMMANDLINE")
    ]
    if given:
        raise typer.BadParameter(
            f"write options behind the command: collabopt schedule {context.invoked_subcommand} ... {given[0].opts[0]}"
        )


def _console() -> "Console":
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 140)
