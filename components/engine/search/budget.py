"""What a search may cost."""

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.validation import Checked


class Budget(Checked):
    """Limits; the search ends at the first that is reached, and a wave that has begun is finished.

    Attributes:
        trials: Configurations tried, the default one included.
        epochs: Epochs of training, summed over the stages that are really trained; None for no limit.
        minutes: Wall time after which no wave begins; None for no limit. On one machine it stands still while the
            search is interrupted, on a cluster it runs from the first proposal on.
    """

    trials: Annotated[int, Field(ge=1)] = 12
    epochs: Annotated[int, Field(ge=1)] | None = None
    minutes: Annotated[float, Field(gt=0)] | None = None

    @property
    def as_params(self) -> dict[str, Any]:
        """As MLflow shows it: `budget.trials` and the like, of the limits that there are."""
        return {f"budget.{name}": limit for name, limit in self.model_dump(exclude_none=True).items()}


class Used(Checked):
    """What a search has cost.

    Attributes:
        trials: Configurations that are answered.
        epochs: Epochs of training.
        minutes: Wall time, counted as that of the budget.
    """

    trials: int = 0
    epochs: int = 0
    minutes: float = 0.0


def budget_of(limits: Mapping[str, Any], option: str) -> Budget:
    """A budget of limits as they were given.

    Args:
        limits: `trials`, `epochs`, `minutes` -> the limit; None, or nothing, for that by default.
        option: How they were given, for messages: "--param budget_{name}={value}".

    Raises:
        CollaboptError: A limit allows no trial, or is none.
    """
    for name, value in limits.items():
        if value is not None and not 0 < value < math.inf:
            problem = "no limit" if value == math.inf else "too small for one trial"
            raise CollaboptError(
                f"a budget of {value:g} {name} is {problem}",
                where=option.format(name=name, value=f"{value:g}"),
                todo="allow at least one trial, or leave it out for no limit",
            )
    return Budget(**{name: value for name, value in limits.items() if value is not None})


def check_budget(budget: Budget, epochs_of_a_trial: int) -> None:
    """Refuses a budget that does not pay for the first trial.

    Args:
        budget: The budget.
        epochs_of_a_trial: Epochs of the default configuration, over all stages that train.

    Raises:
        CollaboptError: It does not.
    """
    if budget.epochs is not None and budget.epochs < epochs_of_a_trial:
        raise CollaboptError(
            f"the budget of {budget.epochs} epochs is too small for one trial: the default configuration trains "
            f"{epochs_of_a_trial} over all stages",
            where="epochs of the budget",
            todo=f"allow at least {epochs_of_a_trial}, or choose fewer with --param epochs=1 --param qat_epochs=1",
        )


def is_spent(budget: Budget, used: Used) -> str:
    """Which limit is reached, in words; "" for none."""
    if used.trials >= budget.trials:
        return f"{budget.trials} trials"
    if budget.epochs is not None and used.epochs >= budget.epochs:
        return f"{budget.epochs} epochs"
    if budget.minutes is not None and used.minutes >= budget.minutes:
        return f"{budget.minutes:g} minutes"
    return ""
