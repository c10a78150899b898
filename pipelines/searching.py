"""`collabopt search`: trials in waves, each run with kfp.local, and the gate that decides over the leaves of all.

Everything that a search needs to go on lies in `.search/` inside its output directory: the state, Optuna's database,
and what every stage has left. The same command goes on at any point.
"""

import contextlib
import functools
import json
import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from collabopt.components.engine.errors import CollaboptError
from collabopt.components.engine.records import DECISION_FILE
from collabopt.components.engine.search.budget import is_spent
from collabopt.components.engine.search.left_out import write_left_out
from collabopt.components.engine.search.progress import Progress
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
from collabopt.components.engine.search.sharing import PlannedStage
from collabopt.components.engine.session import (
    LOG_DIRECTORY_VARIABLE,
    PIPELINE_NAME_VARIABLE,
    PIPELINE_RUN_ID_VARIABLE,
    stage_session,
)
from collabopt.pipelines.finished_stages import finished_stages
from collabopt.pipelines.local_run import run_part, tell_failure
from collabopt.pipelines.output_directory import OutputDirectory, open_output
from collabopt.pipelines.run_state import WatchedStage
from collabopt.pipelines.search_plan import PlannedSearch
from collabopt.pipelines.search_summary import summarize
from collabopt.pipelines.search_wave import wave_of
from collabopt.pipelines.tree import ROOT

if TYPE_CHECKING:
    from collabopt.components.engine.gate.decision import Decision
    from collabopt.components.engine.prescreen.records import Prediction, Prescreen
    from collabopt.components.engine.search.study import Study, Trial

NAME = "search"
SEARCH_DIRECTORY = ".search"
TRIALS_OF_A_WAVE = 3

_WAVE = "collabopt.pipelines.search_wave:run_wave"
_PREDICTIONS = "predictions"
# Of the origin, in MLflow: what is there stage by stage, or under the names of the parameters.
_NOT_SHOWN = ("settings", "parameters", "settings of its stages")


def run_search(planned: PlannedSearch, console: Console, *, on_failure: Callable[[str], None]) -> SearchSummary:
    """Runs a search, or goes on with one, and publishes leaves and decision as a run does.

    Args:
        planned: What to search.
        console: Where progress is shown.
        on_failure: Called with the run id when anything failed or the search was interrupted.

    Raises:
        CollaboptError: A stage or the gate failed, the directory is in use, or it holds another search.
        KeyboardInterrupt: The search was interrupted; the same command goes on.
    """
    with open_output(planned.run.output.absolute()) as output:
        place = output.path / SEARCH_DIRECTORY
        before = read_state(place / STATE_FILE)
        if before is not None:
            check_same_origin(before, planned.origin, planned.terms.budget, str(place))
        place.mkdir(exist_ok=True)
        state = before or SearchState(
            origin=planned.origin, run_id=str(uuid.uuid4()), budget=planned.terms.budget, policy=planned.policy or ""
        )
        state = state.model_copy(update={"budget": planned.terms.budget})
        write_state(state, place / STATE_FILE)
        output.clear_logs(["gate", _PREDICTIONS])
        with _as_pipeline_run(state.run_id, planned.run.tracking_uri, output.logs):
            search = _Search(planned, output, place, state, console)
            try:
                return search.decide(search.run())
            except BaseException as error:
                tell_failure(state.run_id, on_failure, console)
                if isinstance(error, CollaboptError) and not search.has_trained:
                    shutil.rmtree(place)  # so that another command can be right where this one was wrong
                raise


class _Search:
    """A search whose trials run with kfp.local, wave by wave."""

    def __init__(
        self,
        planned: PlannedSearch,
        output: OutputDirectory,
        place: Path,
        state: SearchState,
        console: Console,
    ) -> None:
        from collabopt.components.engine.search.ongoing import Ongoing

        self._planned, self._terms, self._output, self._place = planned, planned.terms, output, place
        self._console = console
        self._waves = 0
        log = output.logs / f"{_PREDICTIONS}.log"
        self._ongoing = Ongoing(planned.terms, place, state, finished_stages(self._root), log)

    @property
    def _root(self) -> Path:
        return self._place / "root"

    @property
    def has_trained(self) -> bool:
        """Whether a stage of the tree has been finished, also in a wave that has failed."""
        return not finished_stages(self._root).models.keys() <= {ROOT}

    def run(self) -> str:
        """Runs wave after wave; returns what ended the search."""
        ongoing = self._ongoing
        with self._timed():
            self._train_default()
        ongoing.settle_policy()
        study = ongoing.study()
        ongoing.catch_up(study)
        while not (ended_by := is_spent(self._terms.budget, ongoing.used(study))):
            with self._timed():
                with _predicting():
                    wave, why_no_more = ongoing.next_wave(study, TRIALS_OF_A_WAVE)
                predictions = self._train(study, wave) if wave else {}
            if not wave:
                return why_no_more
            ongoing.tell(study, wave, predictions)
        return ended_by

    def decide(self, ended_by: str) -> SearchSummary:
        """Lets the gate decide over all leaves, and publishes."""
        ongoing = self._ongoing
        study = ongoing.study()
        trials = study.answered()
        progress = ongoing.progress(ongoing.stages(study), trials)
        with _predicting():
            predicted = ongoing.predicted(study, trials)
        decision, leaves = self._gate(progress, predicted)
        summary = summarize(
            progress,
            {trial.number: trial.configuration for trial in trials},
            ongoing.objectives(),
            decision,
            self._terms.budget,
            ongoing.used(study),
            ended_by,
        )
        decided = self._output.work / "gate"
        (decided / POLICY_FILE).write_text(ongoing.state.policy, encoding="utf-8")
        (decided / SUMMARY_FILE).write_text(summary.model_dump_json(indent=2) + "\n", encoding="utf-8")
        self._output.publish(leaves, decided / DECISION_FILE)
        return summary

    def _train_default(self) -> None:
        """Trains the default configuration, of which all can be made."""
        ongoing = self._ongoing
        default = self._terms.stages([self._terms.default])
        if ROOT not in ongoing.finished.models:
            self._run_wave("the baseline", [], None)
        if ongoing.progress(default).missing(default[0].values()):
            with _predicting():
                predictions = ongoing.foresee_default()
            needed = ongoing.to_train(default, predictions, ongoing.progress(default))
            if needed:
                self._run_wave("the default configuration", needed, ongoing.state.policy or None)

    def _train(self, study: "Study", wave: Sequence["Trial"]) -> dict[str, "Prediction"]:
        """Trains what the trials of a wave need."""
        ongoing = self._ongoing
        stages = ongoing.stages(study)
        with _predicting():
            predictions = ongoing.foresee(study, wave)
        mine = [stages[trial.number] for trial in wave]
        needed = ongoing.to_train(mine, predictions, ongoing.progress(stages))
        if needed:
            numbers = ", ".join(str(trial.number) for trial in wave)
            title = f"trial {numbers}" if len(wave) == 1 else f"trials {numbers}"
            self._run_wave(title, needed, ongoing.state.policy)
        return predictions

    def _run_wave(self, title: str, stages: Sequence[PlannedStage], policy: str | None) -> None:
        ongoing = self._ongoing
        self._waves += 1
        work = self._output.work / f"wave-{self._waves}"
        work.mkdir()
        left_out = work / "left_out.json"
        first = (
            [] if ROOT in ongoing.finished.models else [WatchedStage(name) for name in ("configure", "dataset", ROOT)]
        )
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
            ongoing.state.run_id,
            OutputDirectory(self._output.path, work),
            self._console,
            title=f"{NAME}: {title} -> {self._planned.run.output}",
        )
        ongoing.finished = finished_stages(self._root)
        ongoing.leave_out(json.loads(left_out.read_bytes()))

    def _gate(self, progress: Progress, predicted: "Prescreen") -> tuple["Decision", dict[str, Path]]:
        from collabopt.components.engine.gate.candidates import read_candidates
        from collabopt.components.engine.gate.run import Gate, run_gate
        from collabopt.components.engine.gate.sample import samples_of

        ongoing = self._ongoing
        leaves = {}
        for name in progress.all_leaves():
            leaves[name] = self._output.work / "leaves" / name
            leaves[name].mkdir(parents=True)
            for file in progress.models[name].iterdir():
                shutil.copy(file, leaves[name] / file.name)
        leaves |= write_left_out(progress, ongoing.baseline, self._output.work / "leaves")
        gate = Gate(
            read_candidates(ongoing.baseline, leaves),
            ongoing.policy,
            functools.partial(samples_of, str(ongoing.finished.dataset)),
            str(self._terms.parameters["model_name"]),
            str(self._terms.parameters["releases"]),
            predicted,
        )
        shown = {name: value for name, value in self._planned.origin.items() if name not in _NOT_SHOWN}
        parameters = {**shown, **self._planned.origin["parameters"], **self._planned.terms.budget.as_params}
        with stage_session("gate"):
            return run_gate(gate, self._output.work / "gate", parameters), leaves

    @contextlib.contextmanager
    def _timed(self) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self._ongoing.save(minutes=self._ongoing.state.minutes + (time.monotonic() - began) / 60)


def _predicting() -> contextlib.AbstractContextManager[object]:
    return Console(stderr=True).status("predicting sizes")


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
