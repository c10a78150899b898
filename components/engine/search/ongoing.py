"""A search that is going on: what it proposes, what it leaves untrained, and what it learns from what was trained.

Whoever runs the trials, with kfp.local or on Kubeflow, asks it for a wave, trains what that takes, and lets it learn.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.candidates import on_accelerator
from collabopt.components.engine.gate.decision import decide
from collabopt.components.engine.policy.figures import baseline_figures
from collabopt.components.engine.policy.policy import Policy, parse_policy
from collabopt.components.engine.prescreen.mode import SKIP
from collabopt.components.engine.prescreen.records import Prediction, Prescreen
from collabopt.components.engine.records import StageRecord
from collabopt.components.engine.search.account import account_of_trial, leaves_to_describe
from collabopt.components.engine.search.budget import Used
from collabopt.components.engine.search.default_policy import beating
from collabopt.components.engine.search.finished import Finished
from collabopt.components.engine.search.foresight import Foresight, why_left_out
from collabopt.components.engine.search.objectives import Answer, Objective, objectives_of
from collabopt.components.engine.search.outcome import answer_of_trial, told
from collabopt.components.engine.search.plans import PLAN
from collabopt.components.engine.search.progress import Progress, needed_for
from collabopt.components.engine.search.records import STATE_FILE, SearchState, write_state
from collabopt.components.engine.search.sharing import PlannedStage, TrialStages
from collabopt.components.engine.search.space import Configuration
from collabopt.components.engine.search.study import Study, Trial
from collabopt.components.engine.search.terms import Terms
from collabopt.components.engine.stage_names import BASELINE
from collabopt.components.engine.tracking import open_parent
from collabopt.components.engine.tracking.trials import log_configurations, log_trial
from collabopt.components.engine.versions import versions


class Ongoing:
    """A search that is going on; what it knows is what lies on disk.

    Attributes:
        terms: What it is about.
        state: What it has to remember; see `save`.
        finished: The stages that have been finished; whoever finishes more says so here.
    """

    def __init__(self, terms: Terms, place: Path, state: SearchState, finished: Finished, log: Path) -> None:
        """Reads nothing yet.

        Args:
            terms: What it is about.
            place: Directory of state and study.
            state: As it was written last.
            finished: The stages that have been finished.
            log: File for what predictions print.
        """
        self.terms, self.state, self.finished = terms, state, finished
        self._place, self._log_file = place, log
        self._answers: list[Answer] = []
        self._foresight: Foresight | None = None

    @property
    def baseline(self) -> StageRecord:
        """The baseline's record."""
        return self.finished.records[BASELINE]

    @property
    def policy(self) -> Policy:
        """The policy in effect."""
        return parse_policy(self.state.policy)

    def save(self, **changed: Any) -> None:
        """Changes the state, and writes it."""
        self.state = self.state.model_copy(update=changed)
        write_state(self.state, self._place / STATE_FILE)

    def leave_out(self, reasons: Mapping[str, str]) -> None:
        """Remembers why stages are not trained, or would not be had no earlier trial done so: name -> reason."""
        self.save(left_out={**self.state.left_out, **reasons})

    def settle_policy(self) -> None:
        """Where no policy was given, wants more than the default configuration has, which is trained by now."""
        if not self.state.policy:
            leaves = self.progress(self.terms.stages([self.terms.default])).leaves(0)
            self.save(policy=beating(decide(self.baseline, leaves, parse_policy(""))))

    def objectives(self) -> tuple[Objective, ...]:
        """What trials are compared by."""
        return objectives_of(self.policy, self.baseline)

    def study(self) -> Study:
        """The proposals so far; the default configuration is the first."""
        seed = int(self.terms.parameters["seed"])
        study = Study(self._place / "study.db", self.terms.space, self.objectives(), seed)
        if not study.trials():
            study.begin(self.terms.default)
        return study

    def stages(self, study: Study) -> list[TrialStages]:
        """The stages of everything that was proposed."""
        return self.terms.stages([trial.configuration for trial in study.trials()])

    def progress(self, stages: Sequence[TrialStages], trials: Iterable[Trial] | None = None) -> Progress:
        """What trials have come to: all whose stages these are, or those that are named."""
        numbers = range(len(stages)) if trials is None else [trial.number for trial in trials]
        return Progress(
            {number: stages[number] for number in numbers},
            self.finished.records,
            self.finished.models,
            self.state.left_out,
        )

    def used(self, study: Study) -> Used:
        """What the search has cost."""
        progress = self.progress(self.stages(study))
        return Used(trials=len(study.answered()), epochs=progress.epochs, minutes=self.state.minutes)

    def catch_up(self, study: Study) -> None:
        """Answers what is waiting and fully trained, as the default configuration, and learns earlier answers anew."""
        stages = self.stages(study)
        progress = self.progress(stages)
        trials = study.trials()
        untrained = [stages[trial.number] for trial in trials if trial.answered and not progress.leaves(trial.number)]
        predictions = self._predict(untrained, stages[0])
        for trial in trials:
            if trial.answered:
                self._answers.append(self._answer_of(trial.number, progress, predictions))
            elif trial.number == 0:
                self.tell(study, [trial], self._predict([stages[0]], stages[0]))

    def next_wave(self, study: Study, size: int, *, apart: bool = False) -> tuple[list[Trial], str]:
        """The trials that were proposed and not answered, and new ones; or why there are none.

        Args:
            study: The proposals.
            size: Most trials.
            apart: Whether no two of them may train the same stage, for who cannot share it inside a wave.
        """
        room = min(size, self.terms.budget.trials - self.used(study).trials)
        while len(waiting := [trial for trial in study.trials() if not trial.answered]) < room:
            if not study.propose(self._apart(study) if apart else None):
                break
        if not waiting:
            return [], "the space is exhausted"
        return self._affordable(study, waiting[:room])

    def foresee_default(self) -> dict[str, Prediction]:
        """As `foresee`, of the default configuration, before anything is trained.

        Raises:
            CollaboptError: One of its leaves cannot be made, or a plan of the space names a layer that is not there.
        """
        (trial,) = self.terms.stages([self.terms.default])
        predictions = self._predict([trial], trial)
        self._check_plans(trial)
        for name, each in predictions.items():
            if each.infeasible:
                raise CollaboptError(
                    f"the default configuration cannot be made: {each.infeasible}",
                    where=f"leaf '{name}'",
                    todo="give parameters, settings and plan values that the model bears; the search begins with them",
                )
        self._remember_ruled_out(predictions)
        return predictions

    def _check_plans(self, default: TrialStages) -> None:
        """Predicts the default configuration with every plan of the space."""
        space = self.terms.space
        planned = self.terms.stages([{**self.terms.default, PLAN: name} for name in space.plans])
        try:
            self._predict(planned, default)
        except CollaboptError as error:
            where = "; ".join(filter(None, (space.places.get(PLAN, PLAN), error.where)))
            raise CollaboptError(error.what, where=where, todo=error.todo) from error

    def foresee(self, study: Study, wave: Sequence[Trial]) -> dict[str, Prediction]:
        """Predicts all leaves of some trials, and remembers which of them are not to be trained."""
        stages = self.stages(study)
        predictions = self._predict([stages[trial.number] for trial in wave], stages[0])
        self._remember_ruled_out(predictions)
        return predictions

    def _remember_ruled_out(self, predictions: Mapping[str, Prediction]) -> None:
        self.leave_out({name: reason for name, each in predictions.items() if (reason := self._why_left_out(each))})

    def to_train(
        self, trials: Sequence[TrialStages], predictions: Mapping[str, Prediction], progress: Progress
    ) -> list[PlannedStage]:
        """What is still to be trained or converted for some trials, parents first."""
        stages = [stage for trial in trials for stage in trial.values()]
        leaves = [
            stage.name
            for stage in progress.missing(stages)
            if stage.is_leaf and not self._why_left_out(predictions[stage.name])
        ]
        return progress.missing(needed_for(leaves, stages))

    def tell(self, study: Study, wave: Sequence[Trial], predictions: Mapping[str, Prediction]) -> None:
        """Says how trials came out, to Optuna and to MLflow."""
        stages = self.stages(study)
        progress = self.progress(stages)
        for trial in wave:
            answer = self._answer_of(trial.number, progress, predictions)
            _log(trial, answer, progress)
            study.tell(trial, told(answer, self.objectives(), self._answers))
            self._answers.append(answer)

    def predicted(self, study: Study, trials: Sequence[Trial]) -> Prescreen:
        """What was predicted of every leaf of some trials, for the gate to hold beside what was trained."""
        assert self.finished.dataset is not None
        stages = self.stages(study)
        predictions = self._predict([stages[trial.number] for trial in trials], stages[0])
        return Prescreen(
            model=str(self.terms.parameters["model"]),
            data=str(self.terms.parameters["data"]),
            dataset_digest=self.baseline.dataset_digest,
            grid={},
            baseline=baseline_figures(self.baseline),
            policy=self.policy,
            predictions=list(predictions.values()),
            files=len({each.recipe for each in predictions.values()}),
            not_trained={
                name: reason
                for name, each in predictions.items()
                if name not in self.finished.records and not each.infeasible and (reason := self._why_left_out(each))
            },
            versions=versions(),
        )

    def _apart(self, study: Study) -> Callable[[Configuration], bool]:
        trials = [trial.configuration for trial in study.trials()]
        stages = self.terms.stages(trials)
        pending = {
            stage.name
            for trial in study.trials()
            if not trial.answered
            for stage in self.progress(stages).missing(stages[trial.number].values())
            if stage.trains
        }

        def fits(configuration: Configuration) -> bool:
            return pending.isdisjoint(stage.name for stage in self.terms.stages([*trials, configuration])[-1].values())

        return fits

    def _affordable(self, study: Study, waiting: Sequence[Trial]) -> tuple[list[Trial], str]:
        limit = self.terms.budget.epochs
        if limit is None:
            return list(waiting), ""
        stages = self.stages(study)
        progress = self.progress(stages)
        predictions = self._predict([stages[trial.number] for trial in waiting], stages[0])
        wave: list[Trial] = []
        for trial in waiting:
            tried = [stages[each.number] for each in (*wave, trial)]
            if progress.epochs + sum(each.epochs for each in self.to_train(tried, predictions, progress)) > limit:
                break
            wave.append(trial)
        return wave, f"{limit} epochs: the next trial would take more"

    def _answer_of(self, trial: int, progress: Progress, predictions: Mapping[str, Prediction]) -> Answer:
        policy = self.policy
        measured = {
            name: on_accelerator(report, self.finished.models[name], policy.accelerator)
            for name, report in progress.leaves(trial).items()
        }
        names = [stage.name for stage in progress.trials[trial].values()]
        foreseen = [predictions[name] for name in names if name in predictions]
        return answer_of_trial(measured, foreseen, self.baseline, policy)

    def _predict(self, trials: Sequence[TrialStages], feasible: TrialStages) -> dict[str, Prediction]:
        if self._foresight is None:
            assert self.finished.dataset is not None
            self._foresight = Foresight(
                self.finished.models[BASELINE],
                self.finished.dataset,
                self.baseline,
                self.policy.accelerator,
                self._log_file,
            )
        return self._foresight.predicted(trials, feasible)

    def _why_left_out(self, prediction: Prediction) -> str:
        if self.terms.parameters["prescreen"] != SKIP:
            return why_left_out(prediction, parse_policy("goals: []"), {})
        return why_left_out(prediction, self.policy, self.baseline.metrics)


def _log(trial: Trial, answer: Answer, progress: Progress) -> None:
    parent = open_parent()
    if parent is None:
        return
    log_trial(parent, trial.number, account_of_trial(trial, answer, progress))
    log_configurations(parent, leaves_to_describe(trial, progress))
