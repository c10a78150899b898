"""Proposals by Optuna, kept in SQLite, so that a search that was killed goes on where it was.

TPE, not NSGA-II: a search has tens of trials, and the genetic algorithm learns nothing before its first generation of
fifty is through. TPE takes several objectives and constraints (Ozaki et al. 2022,
https://doi.org/10.1613/jair.1.13188; https://optuna.readthedocs.io/en/stable/reference/samplers/). Its random numbers
are not kept: every wave seeds them anew by the trials before it, so that an interruption changes no proposal.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.search.objectives import Objective
from collabopt.components.engine.search.space import Choices, Configuration, Space

if TYPE_CHECKING:
    import optuna

_STUDY = "search"
# Of a trial: what it is, once it is whole; and that it was passed over.
_CONFIGURATION, _PASSED_OVER = "configuration", "passed over"
_ASKED = {_CONFIGURATION, _PASSED_OVER}
# Random before TPE has anything to go by; the default configuration is one of them where the space holds it.
_STARTUP_TRIALS = 5
# Where so many proposals in a row have been made before, TPE has no other: one is drawn at random.
_REPEATS = 10


@dataclass(frozen=True)
class Trial:
    """A configuration that was proposed.

    Attributes:
        number: Its number in the search, from 0.
        configuration: Axis -> value.
        answered: Whether Optuna has been told how it came out.
        optuna_number: Its number in the study, which also counts proposals that were made before.
    """

    number: int
    configuration: Configuration
    answered: bool
    optuna_number: int


@dataclass(frozen=True)
class Told:
    """How a trial came out.

    Attributes:
        values: One per objective.
        violations: One per goal, 0 where it is met.
    """

    values: Sequence[float]
    violations: Sequence[float]


class Study:
    """The proposals of one search."""

    def __init__(self, file: Path, space: Space, objectives: Sequence[Objective], seed: int) -> None:
        """Opens the study, or begins it.

        Args:
            file: Its SQLite database.
            space: What may be proposed.
            objectives: What trials are compared by.
            seed: Seeds every proposal.
        """
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._space, self._seed = space, seed
        self._violations: dict[int, Sequence[float]] = {}
        self._study = optuna.create_study(
            study_name=_STUDY,
            storage=f"sqlite:///{file}",
            directions=["maximize" if each.higher_is_better else "minimize" for each in objectives],
            load_if_exists=True,
        )
        for trial in self._of_state(optuna.trial.TrialState.RUNNING):
            if _CONFIGURATION not in trial.user_attrs:  # killed between being asked for and being whole
                self._study.tell(trial.number, state=optuna.trial.TrialState.FAIL)

    def trials(self) -> list[Trial]:
        """Everything that was proposed, in this order."""
        whole = [each for each in self._study.get_trials(deepcopy=False) if _CONFIGURATION in each.user_attrs]
        return [
            Trial(number, each.user_attrs[_CONFIGURATION], each.state.is_finished(), each.number)
            for number, each in enumerate(whole)
        ]

    def answered(self) -> list[Trial]:
        """Those of `trials` that Optuna has been told of; not always the first ones."""
        return [trial for trial in self.trials() if trial.answered]

    def begin(self, default: Configuration) -> None:
        """Makes the default configuration the first trial, also where it lies outside the space."""
        if self._space.holds(default):
            self._ask_for(default)
        else:  # Optuna learns nothing from it, see `tell`, but leaves are compared with its leaves
            self._study.ask().set_user_attr(_CONFIGURATION, default)

    def propose(self, fits: Callable[[Configuration], bool] | None = None) -> bool:
        """Adds one trial that is not there yet; False where the space holds no other.

        Args:
            fits: Which configurations may be proposed now; None for all. One that is passed over may come later.
        """
        known = [trial.configuration for trial in self.trials()]

        def is_welcome(configuration: Configuration) -> bool:
            return configuration not in known and (fits is None or fits(configuration))

        if any(self._ask(is_welcome) for _ in range(_REPEATS)):
            return True
        points = self._space.points()
        if points is None:
            return any(self._ask(is_welcome, at_random=True) for _ in range(_REPEATS))
        left = [point for point in points if is_welcome(point)]
        return bool(left) and self._ask_for(random.Random(f"{self._seed}-{len(known)}").choice(left))

    def tell(self, trial: Trial, told: Told) -> None:
        """Says how a trial came out; one that has been answered stays as it was.

        To Optuna, the default configuration has failed where it lies outside the space: TPE samples together only those
        parameters that all finished trials have, and that one has none.
        """
        import optuna

        if not self._space.holds(trial.configuration):
            self._study.tell(trial.optuna_number, state=optuna.trial.TrialState.FAIL, skip_if_finished=True)
            return
        self._violations[trial.optuna_number] = told.violations
        self._study.sampler = self._sampler(0)
        self._study.tell(trial.optuna_number, list(told.values), skip_if_finished=True)

    def _ask_for(self, configuration: Configuration) -> bool:
        import optuna

        if not self._of_state(optuna.trial.TrialState.WAITING):  # else killed after this, and it is first in the queue
            self._study.enqueue_trial(configuration)
        return self._ask()

    def _ask(self, is_welcome: Callable[[Configuration], bool] = lambda _: True, *, at_random: bool = False) -> bool:
        import optuna

        asked = [each for each in self._study.get_trials(deepcopy=False) if not _ASKED.isdisjoint(each.user_attrs)]
        seed = self._seed * 100_003 + len(asked)
        self._study.sampler = optuna.samplers.RandomSampler(seed % 2**32) if at_random else self._sampler(seed)
        trial = self._study.ask()
        configuration = {name: _suggested(trial, name, axis) for name, axis in self._space.axes.items()}
        if not is_welcome(configuration):
            trial.set_user_attr(_PASSED_OVER, True)
            self._study.tell(trial, state=optuna.trial.TrialState.FAIL)
            return False
        trial.set_user_attr(_CONFIGURATION, configuration)
        return True

    def _of_state(self, state: "optuna.trial.TrialState") -> "list[optuna.trial.FrozenTrial]":
        return self._study.get_trials(deepcopy=False, states=[state])

    def _sampler(self, seed: int) -> "optuna.samplers.TPESampler":
        import warnings

        import optuna

        with warnings.catch_warnings():  # some arguments are called experimental
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            return optuna.samplers.TPESampler(
                n_startup_trials=_STARTUP_TRIALS,
                multivariate=True,
                constant_liar=True,  # the trials of a wave are proposed together, and should differ
                constraints_func=lambda trial: self._violations.get(trial.number, ()) or (0.0,),
                seed=seed % 2**32,
            )


def _suggested(trial: Any, name: str, axis: Any) -> Any:
    if isinstance(axis, Choices):
        return trial.suggest_categorical(name, axis.values)
    if axis.is_whole:
        return trial.suggest_int(name, axis.low, axis.high, step=axis.step or 1, log=axis.log)
    value = trial.suggest_float(name, axis.low, axis.high, step=axis.step, log=axis.log)
    return value if axis.step is None else axis.as_step(value)
