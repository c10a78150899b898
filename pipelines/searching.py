"""`collabopt search`: trials in waves, each run with kfp.local, and the gate that decides over the leaves of all.

Everything that a search needs to go on lies in `.search/` inside its output directory: the state, Optuna's database,
and what every stage has left. The same command goes on at any point.
"""

import contextlib
import functools
import importlib.metadata
import json
import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.gate.policy import check_task, parse_policy
from collabopt.components.engine.prescreen.mode import SKIP
from collabopt.components.engine.records import DECISION_FILE, LeafReport, StageRecord
from collabopt.components.engine.search.budget import Budget, Used, check_budget, is_spent
from collabopt.components.engine.search.left_out import write_left_out
from collabopt.components.engine.search.progress import Progress, needed_for
from collabopt.components.engine.search.records import (
    POLICY_FILE,
    STATE_FILE,
    SUMMARY_FILE,
    SearchState,
    SearchSummary,
    check_same_origin,
    read_state,
    write_state,
)
from collabopt.components.engine.search.sharing import Place, PlannedStage, TrialStages, plan_stages
from collabopt.components.engine.search.space import Configuration, Space, read_space
from collabopt.components.engine.session import (
    LOG_DIRECTORY_VARIABLE,
    PIPELINE_NAME_VARIABLE,
    PIPELINE_RUN_ID_VARIABLE,
    stage_session,
)
from collabopt.pipelines import parameters_of, stages_of
from collabopt.pipelines.finished_stages import finished_stages
from collabopt.pipelines.local_run import LocalRun, run_part
from collabopt.pipelines.output_directory import OutputDirectory, open_output
from collabopt.pipelines.preflight import plan_run
from collabopt.pipelines.run_state import WatchedStage
from collabopt.pipelines.search_space import check_space, default_space
from collabopt.pipelines.search_summary import summarize
from collabopt.pipelines.search_wave import wave_of
from collabopt.pipelines.tree import ROOT, TREE

if TYPE_CHECKING:
    from collabopt.components.engine.gate.decision import Decision
    from collabopt.components.engine.prescreen.records import Prediction
    from collabopt.components.engine.search.foresight import Foresight
    from collabopt.components.engine.search.objectives import Answer
    from collabopt.components.engine.search.study import Study, Trial

NAME = "search"
SEARCH_DIRECTORY = ".search"
TRIALS_OF_A_WAVE = 3

_WAVE = "collabopt.pipelines.search_wave:run_wave"
_STAGED_PIPELINE = "staged"
_PREDICTIONS = "predictions"


@dataclass(frozen=True)
class PlannedSearch:
    """A search, all of it checked.

    Attributes:
        run: As a run of the pipeline would be: arguments, output, MLflow.
        places: The stages that are grown, parents first.
        parameters: Every pipeline parameter -> its value.
        overrides: Stage -> hyperparameter -> value.
        space: What may be proposed.
        budget: What it may cost.
        policy: The policy as YAML; None to beat the default configuration.
        origin: What must be the same for an interrupted search to go on.
    """

    run: LocalRun
    places: tuple[Place, ...]
    parameters: Mapping[str, Any]
    overrides: Mapping[str, Mapping[str, Any]]
    space: Space
    budget: Budget
    policy: str | None
    origin: dict[str, Any] = field(default_factory=dict)

    @property
    def default(self) -> Configuration:
        """The default configuration: the axes with the values that a run would have."""
        given = {}
        for axis in self.space.axes:
            stage, dot, name = axis.partition(".")
            place = next((place for place in self.places if place.name == stage), None)
            if dot and place is not None:
                given[axis] = self.stages([{}])[0][stage].settings[name]
            else:
                given[axis] = self.parameters[axis]
        return given

    def stages(self, trials: Iterable[Configuration]) -> list[TrialStages]:
        """The stages of trials, shared ones under one name."""
        return plan_stages(trials, self.places, self.parameters, self.overrides)


def plan_search(
    *,
    model: str,
    data: str,
    output: Path,
    pipeline: str = "exhaustive",
    space: Path | None = None,
    trials: int | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    task: str | None = None,
    policy: Path | None = None,
    name: str | None = None,
    releases: str = "",
    settings: Iterable[str] = (),
    parameters: Iterable[str] = (),
    plan: Path | None = None,
) -> PlannedSearch:
    """Turns what the command line says into a search that is ready to start; changes nothing.

    Args:
        model: See `plan_run`, as everything that is not named here.
        data: See `plan_run`.
        output: See `plan_run`.
        pipeline: Which part of the tree is grown.
        space: File with the space; None for the default one.
        trials: Most trials; None for the default.
        epochs: Most epochs of training over all stages; None for no limit.
        minutes: Wall time after which no wave begins; None for no limit.
        task: See `plan_run`.
        policy: File with the policy, or the name of an example; None to beat the default configuration.
        name: See `plan_run`.
        releases: See `plan_run`.
        settings: See `plan_run`.
        parameters: See `plan_run`; they are no axes then.
        plan: See `plan_run`.

    Raises:
        CollaboptError: The first problem that is found.
    """
    if pipeline == _STAGED_PIPELINE:
        raise CollaboptError(
            "a search grows all its stages, and `staged` only those that are needed",
            where="--pipeline staged",
            todo="search over `exhaustive`, the same tree, or over a branch",
        )
    from collabopt.pipelines.arguments import EXAMPLE_PARAMETERS, check_pipeline, parse_parameters

    check_pipeline(pipeline)
    budget = _budget(trials, epochs, minutes)
    defaults = parameters_of(pipeline)
    given = parse_parameters(parameters := list(parameters), defaults)
    wanted = None if space is None else read_space(space)
    run = plan_run(
        pipeline=pipeline,
        model=model,
        data=data,
        output=output,
        task=task,
        policy=policy,
        name=name,
        releases=releases,
        settings=settings,
        parameters=parameters,
        plan=plan,
    )
    places = tuple(
        Place(stage.name, stage.parent, stage.technique.name) for stage in TREE if stage.name in stages_of(pipeline)
    )
    everything = {**defaults, **EXAMPLE_PARAMETERS.get(model, {}), **run.arguments}
    overrides: dict[str, dict[str, Any]] = everything["settings"]
    wanted = default_space(places, given, int(everything["epochs"])) if wanted is None else wanted
    check_space(wanted, places, everything, overrides, given)
    planned = PlannedSearch(
        run=run,
        places=places,
        parameters=everything,
        overrides=overrides,
        space=wanted,
        budget=budget,
        policy=None if policy is None else str(run.arguments["policy"]),
    )
    check_budget(budget, sum(stage.epochs for stage in planned.stages([planned.default])[0].values()))
    return replace(planned, origin=_origin(planned, pipeline))


def _budget(trials: int | None, epochs: int | None, minutes: float | None) -> Budget:
    options = {"trials": trials, "epochs": epochs, "minutes": minutes}
    for name, value in options.items():
        if value is not None and not value > 0:
            raise CollaboptError(
                f"a budget of {value:g} {name} is too small for one trial",
                where=f"--{name} {value:g}",
                todo="allow at least one trial, or leave the option out",
            )
    return Budget(**{name: value for name, value in options.items() if value is not None})  # type: ignore[arg-type]


def _origin(planned: PlannedSearch, pipeline: str) -> dict[str, Any]:
    from collabopt.components.engine.source_digest import data_digest, model_digest
    from collabopt.components.engine.training.task import load_task

    sys.path.insert(0, os.getcwd())  # where a task may lie
    model, data, task = (str(planned.parameters[name]) for name in ("model", "data", "task"))
    purpose = load_task(task)
    if planned.policy is not None:
        check_task(parse_policy(planned.policy), purpose)
    fixed = {
        name: value
        for name, value in planned.parameters.items()
        if name not in {*planned.space.axes, "model", "data", "task", "policy", "model_name", "releases", "settings"}
    }
    return {
        "space": planned.space.as_yaml(),
        "policy": planned.policy or "",
        "model": model,
        "content of the model": model_digest(model),
        "data": data,
        "content of the data": data_digest(data, purpose),
        "task": task,
        "pipeline": pipeline,
        "parameters": json.loads(json.dumps(fixed)),
        "settings": json.loads(json.dumps(planned.overrides)),
        "default configuration": planned.default,
        "version of collabopt": importlib.metadata.version("collabopt"),
    }


def run_search(planned: PlannedSearch, console: Console, *, on_failure: Callable[[str], None]) -> SearchSummary:
    """Runs a search, or goes on with one, and publishes leaves and decision as a run does.

    Args:
        planned: What to search.
        console: Where progress is shown.
        on_failure: Called with the run id when a stage failed or the search was interrupted.

    Raises:
        CollaboptError: A stage or the gate failed, the directory is in use, or it holds another search.
        KeyboardInterrupt: The search was interrupted; the same command goes on.
    """
    with open_output(planned.run.output.absolute()) as output:
        place = output.path / SEARCH_DIRECTORY
        before = read_state(place / STATE_FILE)
        if before is not None:
            check_same_origin(before, planned.origin, planned.budget, str(place))
        place.mkdir(exist_ok=True)
        state = before or SearchState(
            origin=planned.origin, run_id=str(uuid.uuid4()), budget=planned.budget, policy=planned.policy or ""
        )
        state = state.model_copy(update={"budget": planned.budget})
        write_state(state, place / STATE_FILE)
        output.clear_logs(["gate", _PREDICTIONS])
        with _as_pipeline_run(state.run_id, planned.run.tracking_uri, output.logs):
            search = _Search(planned, output, place, state, console, on_failure)
            ended_by = search.run()
            return search.decide(ended_by)


class _Search:
    """A search that is going on; what it knows is what lies on disk."""

    def __init__(
        self,
        planned: PlannedSearch,
        output: OutputDirectory,
        place: Path,
        state: SearchState,
        console: Console,
        on_failure: Callable[[str], None],
    ) -> None:
        self._planned, self._output, self._place, self._state = planned, output, place, state
        self._console, self._on_failure = console, on_failure
        self._waves = 0
        self._answers: list[Answer] = []
        self._foresight: Foresight | None = None
        self._finished = finished_stages(self._root)

    @property
    def _root(self) -> Path:
        return self._place / "root"

    def run(self) -> str:
        """Runs wave after wave; returns what ended the search."""
        default = self._planned.stages([self._planned.default])
        if self._progress(default).missing(default[0].values()):
            with self._timed():
                self._run_wave("the default configuration", list(default[0].values()), None)
        if not self._state.policy:
            self._save(policy=self._beating_the_default(default))
        study = self._study()
        if not study.trials():
            study.begin(self._planned.default)
        self._catch_up(study)
        while not (ended_by := is_spent(self._planned.budget, self._used(study))):
            wave, why_no_more = self._next_wave(study)
            if not wave:
                return why_no_more
            self._answer(study, wave)
        return ended_by

    def decide(self, ended_by: str) -> SearchSummary:
        """Lets the gate decide over all leaves, and publishes."""
        study = self._study()
        trials = [trial for trial in study.trials() if trial.answered]
        progress = self._progress(self._planned.stages([trial.configuration for trial in study.trials()]))
        progress = replace(progress, trials=progress.trials[: len(trials)])
        decision, leaves = self._gate(progress)
        summary = summarize(
            progress,
            [trial.configuration for trial in trials],
            self._objectives(),
            decision,
            self._planned.budget,
            self._used(study),
            ended_by,
        )
        self._output.publish(leaves, self._output.work / "gate" / DECISION_FILE)
        (self._output.path / POLICY_FILE).write_text(self._state.policy, encoding="utf-8")
        (self._output.path / SUMMARY_FILE).write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
        return summary

    def _next_wave(self, study: "Study") -> tuple[list["Trial"], str]:
        """The trials that were proposed and not answered, and new ones; or why there are none."""
        room = min(TRIALS_OF_A_WAVE, self._planned.budget.trials - self._used(study).trials)
        while len(waiting := [trial for trial in study.trials() if not trial.answered]) < room:
            if not study.propose():
                break
        if not waiting:
            return [], "the space is exhausted"
        return self._affordable(study, waiting[:room])

    def _affordable(self, study: "Study", waiting: Sequence["Trial"]) -> tuple[list["Trial"], str]:
        limit = self._planned.budget.epochs
        if limit is None:
            return list(waiting), ""
        stages = self._planned.stages([trial.configuration for trial in study.trials()])
        progress = self._progress(stages)
        predictions = self._predict([stages[trial.number] for trial in waiting], stages[0])
        wave: list[Trial] = []
        for trial in waiting:
            tried = [stages[each.number] for each in (*wave, trial)]
            if progress.epochs + sum(each.epochs for each in self._to_train(tried, predictions, progress)) > limit:
                break
            wave.append(trial)
        return wave, f"{limit} epochs: the next trial would take more"

    def _answer(self, study: "Study", wave: Sequence["Trial"]) -> None:
        """Trains what the trials of a wave need, and says how they came out."""
        stages = self._planned.stages([trial.configuration for trial in study.trials()])
        mine = [stages[trial.number] for trial in wave]
        with self._timed():
            predictions = self._train(wave, mine, stages)
        self._tell(study, wave, predictions)

    def _train(
        self, wave: Sequence["Trial"], mine: Sequence[TrialStages], stages: Sequence[TrialStages]
    ) -> dict[str, "Prediction"]:
        predictions = self._predict(mine, stages[0])
        untrained = [name for name in predictions if name not in self._finished.records]
        left_out = {name: reason for name in untrained if (reason := self._why_left_out(predictions[name]))}
        self._save(left_out={**self._state.left_out, **left_out})
        needed = self._to_train(mine, predictions, self._progress(stages))
        if needed:
            numbers = ", ".join(str(trial.number) for trial in wave)
            self._run_wave(f"trial {numbers}" if len(wave) == 1 else f"trials {numbers}", needed, self._state.policy)
        return predictions

    def _catch_up(self, study: "Study") -> None:
        """Answers what is waiting and fully trained, as the default configuration, and learns earlier answers anew."""
        stages = self._planned.stages([trial.configuration for trial in study.trials()])
        for trial in study.trials():
            leaves = self._progress(stages).leaves(trial.number)
            if trial.answered and leaves:
                self._answers.append(self._answer_of(leaves, ()))
            elif trial.number == 0:
                self._tell(study, [trial], {})

    def _tell(self, study: "Study", wave: Sequence["Trial"], predictions: Mapping[str, "Prediction"]) -> None:
        from collabopt.components.engine.search.outcome import told

        stages = self._planned.stages([trial.configuration for trial in study.trials()])
        progress = self._progress(stages)
        for trial in wave:
            of_trial = [each for name, each in predictions.items() if name in _leaf_names(stages[trial.number])]
            answer = self._answer_of(progress.leaves(trial.number), of_trial)
            self._log(trial, answer, progress)
            study.tell(trial, told(answer, self._objectives(), self._answers))
            self._answers.append(answer)

    def _answer_of(self, leaves: Mapping[str, LeafReport], predictions: Iterable["Prediction"]) -> "Answer":
        from collabopt.components.engine.search.outcome import answer_of_trial

        return answer_of_trial(leaves, predictions, self._baseline, parse_policy(self._state.policy))

    def _to_train(
        self, trials: Sequence[TrialStages], predictions: Mapping[str, "Prediction"], progress: Progress
    ) -> list[PlannedStage]:
        stages = [stage for trial in trials for stage in trial.values()]
        leaves = [
            stage.name
            for stage in progress.missing(stages)
            if stage.is_leaf and not self._why_left_out(predictions[stage.name])
        ]
        return progress.missing(needed_for(leaves, stages))

    def _predict(self, trials: Sequence[TrialStages], feasible: TrialStages) -> dict[str, "Prediction"]:
        from collabopt.components.engine.search.foresight import Foresight

        if self._foresight is None:
            assert self._finished.dataset is not None
            accelerator = parse_policy(self._state.policy).accelerator
            self._foresight = Foresight(
                self._finished.models[ROOT],
                self._finished.dataset,
                self._baseline,
                accelerator,
                self._output.logs / f"{_PREDICTIONS}.log",
            )
        with Console(stderr=True).status("predicting sizes"):
            return self._foresight.predicted(trials, feasible)

    def _why_left_out(self, prediction: "Prediction") -> str:
        from collabopt.components.engine.search.foresight import why_left_out

        if self._planned.parameters["prescreen"] != SKIP:
            return why_left_out(prediction, parse_policy("goals: []"), {})
        return why_left_out(prediction, parse_policy(self._state.policy), self._baseline.metrics)

    def _run_wave(self, title: str, stages: Sequence[PlannedStage], policy: str | None) -> None:
        self._waves += 1
        work = self._output.work / f"wave-{self._waves}"
        work.mkdir()
        left_out = work / "left_out.json"
        first = [] if ROOT in self._finished.models else [WatchedStage(name) for name in ("configure", "dataset", ROOT)]
        own = {stage.name for stage in stages}
        watched = [WatchedStage(each.name, each.parent if each.parent in own else None) for each in stages]
        run = replace(
            self._planned.run,
            pipeline=_WAVE,
            name=NAME,
            arguments={
                "root": str(self._root),
                "wave": wave_of(self._planned.run.arguments, stages, policy, left_out),
            },
            stages=(*first, *watched),
            pipeline_root=self._root,
        )
        run_part(
            run,
            self._state.run_id,
            OutputDirectory(self._output.path, work),
            self._console,
            title=f"{NAME}: {title} -> {self._planned.run.output}",
            on_failure=self._on_failure,
        )
        self._finished = finished_stages(self._root)
        self._save(left_out={**self._state.left_out, **json.loads(left_out.read_bytes())})

    def _gate(self, progress: Progress) -> tuple["Decision", dict[str, Path]]:
        from collabopt.components.engine.gate.candidates import read_candidates
        from collabopt.components.engine.gate.run import Gate, run_gate
        from collabopt.components.engine.gate.sample import samples_of

        leaves = {}
        for name in progress.all_leaves():
            leaves[name] = self._output.work / "leaves" / name
            leaves[name].mkdir(parents=True)
            for file in progress.models[name].iterdir():
                shutil.copy(file, leaves[name] / file.name)
        leaves |= write_left_out(progress, self._baseline, self._output.work / "leaves")
        gate = Gate(
            read_candidates(self._baseline, leaves),
            parse_policy(self._state.policy),
            functools.partial(samples_of, str(self._finished.dataset)),
            str(self._planned.parameters["model_name"]),
            str(self._planned.parameters["releases"]),
        )
        shown = {name: value for name, value in self._planned.origin.items() if name not in ("settings", "parameters")}
        parameters = {**shown, **self._planned.origin["parameters"], **_prefixed("budget", self._planned.budget)}
        with stage_session("gate"):
            return run_gate(gate, self._output.work / "gate", parameters), leaves

    def _log(self, trial: "Trial", answer: "Answer", progress: Progress) -> None:
        from collabopt.components.engine.search.account import account_of_trial, leaves_to_describe
        from collabopt.components.engine.tracking import open_parent
        from collabopt.components.engine.tracking.trials import log_configurations, log_trial

        parent = open_parent()
        assert parent is not None
        log_trial(parent, trial.number, account_of_trial(trial, answer, progress))
        log_configurations(parent, leaves_to_describe(trial, progress))

    def _beating_the_default(self, stages: Sequence[TrialStages]) -> str:
        from collabopt.components.engine.gate.decision import decide
        from collabopt.components.engine.search.default_policy import beating

        leaves = self._progress(stages).leaves(0)
        return beating(decide(self._baseline, leaves, parse_policy("")))

    def _objectives(self) -> tuple[Any, ...]:
        from collabopt.components.engine.search.objectives import objectives_of

        return objectives_of(parse_policy(self._state.policy), self._baseline)

    def _study(self) -> "Study":
        from collabopt.components.engine.search.study import Study

        seed = int(self._planned.parameters["seed"])
        return Study(self._place / "study.db", self._planned.space, self._objectives(), seed)

    def _progress(self, stages: Sequence[TrialStages]) -> Progress:
        return Progress(stages, self._finished.records, self._finished.models, self._state.left_out)

    def _used(self, study: "Study") -> Used:
        trials = study.trials()
        progress = self._progress(self._planned.stages([trial.configuration for trial in trials]))
        return Used(trials=sum(trial.answered for trial in trials), epochs=progress.epochs, minutes=self._state.minutes)

    @property
    def _baseline(self) -> StageRecord:
        return self._finished.records[ROOT]

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        yield
        self._save(minutes=self._state.minutes + (time.monotonic() - began) / 60)

    def _save(self, **changed: Any) -> None:
        self._state = self._state.model_copy(update=changed)
        write_state(self._state, self._place / STATE_FILE)


def _leaf_names(trial: TrialStages) -> set[str]:
    return {stage.name for stage in trial.values() if stage.is_leaf}


def _prefixed(prefix: str, budget: Budget) -> dict[str, Any]:
    return {f"{prefix}.{name}": value for name, value in budget.model_dump(exclude_none=True).items()}


@contextlib.contextmanager
def _as_pipeline_run(run_id: str, tracking_uri: str, logs: Path) -> Iterator[None]:
    """What this process logs belongs to the search's run, as what its waves log does."""
    mine = {
        PIPELINE_RUN_ID_VARIABLE: run_id,
        PIPELINE_NAME_VARIABLE: f"{NAME}-{run_id[:8]}",
        "MLFLOW_TRACKING_URI": tracking_uri,
        LOG_DIRECTORY_VARIABLE: str(logs),
    }
    saved = {name: os.environ.get(name) for name in mine}
    os.environ.update(mine)
    try:
        yield
    finally:
        for name, value in saved.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
