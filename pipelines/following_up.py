"""What is said of a run from outside: that it failed, and where all of it is to be seen."""

from typing import TYPE_CHECKING

from collabopt.components.engine.records import HTML_FILE

if TYPE_CHECKING:
    from rich.console import Console

    from collabopt.pipelines.local_run import LocalRun


def mark_failed(pipeline_run_id: str) -> None:
    """Marks the run of a pipeline as failed, if MLflow has heard of it."""
    from collabopt.components.engine.tracking import fail_parent
    from collabopt.components.engine.tracking.reachable import sqlite_path, tracking_uri

    database = sqlite_path(tracking_uri())
    if database is None or database.exists():  # else no stage has logged, and MLflow would make the database only now
        fail_parent(pipeline_run_id)


def print_whereabouts(console: "Console", run: "LocalRun") -> None:
    """Prints where files, report and MLflow runs are: an address, or the command that serves the store."""
    from collabopt.components.engine.tracking.reachable import without_password

    address = without_password(run.tracking_uri)
    served = address if address.startswith("http") else f"mlflow ui --backend-store-uri {address}"
    console.print(f"files: {run.output}", markup=False, soft_wrap=True)
    if (run.output / HTML_FILE).is_file():
        console.print(f"report: {run.output / HTML_FILE}", markup=False, soft_wrap=True)
    console.print(f"runs:  {served}", markup=False, soft_wrap=True)
