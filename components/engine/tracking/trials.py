"""The runs of a search's trials, below the run of the whole search.

A trial has a run with its configuration as params and the figures of its best leaf. The runs of its leaves get the
configuration too: so MLflow's parallel coordinates and scatter plots over the leaves show what made each, and the whole
front. Params bear the axes' own names, and are the only ones on these runs without a stage before them.
"""

from collections.abc import Iterable, Mapping

from collabopt.components.engine.tracking import entries
from collabopt.components.engine.tracking.account import Account, complete
from collabopt.components.engine.tracking.parent import PARENT_RUN_TAG, ParentRun
from collabopt.components.engine.tracking.store import mlflow_errors, quoted

TRIAL_TAG = "collabopt.trial"


def log_trial(parent: ParentRun, number: int, account: Account) -> None:
    """Gives a trial a run that shows all of its account, and nothing twice.

    Args:
        parent: The run of the whole search.
        number: Number of the trial.
        account: Its configuration, figures and tags.

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    client, tags = parent.client, {TRIAL_TAG: str(number), PARENT_RUN_TAG: parent.run_id}
    wanted = f"tags.`{TRIAL_TAG}` = {quoted(str(number))} and tags.`{PARENT_RUN_TAG}` = {quoted(parent.run_id)}"
    with mlflow_errors(client.tracking_uri):
        found = client.search_runs([parent.experiment_id], wanted, max_results=1)
        run = (
            found[0]
            if found
            else client.create_run(
                parent.experiment_id, run_name=f"trial-{number}", tags={**tags, "mlflow.source.name": "collabopt"}
            )
        )
    complete(client, run, account)
    with mlflow_errors(client.tracking_uri):
        client.set_terminated(run.info.run_id, "FINISHED")


def log_configurations(parent: ParentRun, leaves: Iterable[tuple[str, Mapping[str, object]]]) -> None:
    """Adds configurations to the runs of leaves.

    Args:
        parent: The run of the whole search.
        leaves: (MLflow run id, configuration).

    Raises:
        CollaboptError: MLflow cannot be reached, or refuses.
    """
    for run_id, configuration in leaves:
        entries.log_params(parent.client, run_id, configuration)
