"""What MLflow shows of a trial."""

from typing import TYPE_CHECKING

from collabopt.components.engine.search.progress import Progress
from collabopt.components.engine.tracking.account import Account

if TYPE_CHECKING:
    from collabopt.components.engine.search.objectives import Answer
    from collabopt.components.engine.search.study import Trial

_BEST_LEAF_TAG = "collabopt.best_leaf"
_LEFT_OUT_TAG = "collabopt.not_trained"


def account_of_trial(trial: "Trial", answer: "Answer", progress: Progress) -> Account:
    """A trial's configuration, and the figures of the leaf that stands for it: those measured, or those predicted."""
    report = progress.leaves(trial.number).get(answer.leaf)
    left_out = {
        stage: reason
        for stage, planned in progress.trials[trial.number].items()
        if planned.name not in progress.records and (reason := progress.left_out.get(planned.name))
    }
    return Account(
        tags={
            _BEST_LEAF_TAG: answer.leaf if report else "none",
            **({_LEFT_OUT_TAG: "\n".join(f"{name}: {why}" for name, why in left_out.items())} if left_out else {}),
        },
        params=dict(trial.configuration),
        metrics=dict(report.metrics if report else answer.figures),
    )


def leaves_to_describe(trial: "Trial", progress: Progress) -> list[tuple[str, dict[str, object]]]:
    """(MLflow run id, configuration) of the leaves that this trial is the first to have."""
    return [
        (report.lineage[-1].mlflow_run_id, dict(trial.configuration))
        for report in progress.leaves(trial.number).values()
        if report.lineage[-1].trial == trial.number and report.lineage[-1].mlflow_run_id
    ]
