"""What is said of a run in MLflow from outside: that it failed, and where it is to be seen."""


def mark_failed(pipeline_run_id: str) -> None:
    """Marks the run of a pipeline as failed, if MLflow has heard of it."""
    from collabopt.components.engine.tracking import fail_parent
    from collabopt.components.engine.tracking.reachable import sqlite_path, tracking_uri

    database = sqlite_path(tracking_uri())
    if database is None or database.exists():  # else no stage has logged, and MLflow would make the database only now
        fail_parent(pipeline_run_id)


def how_to_see_runs(tracking_uri: str) -> str:
    """The address, or the command that serves the store."""
    return tracking_uri if tracking_uri.startswith("http") else f"mlflow ui --backend-store-uri {tracking_uri}"
