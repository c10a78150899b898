"""The stage between two waves of a search on Kubeflow: it learns from the last one, and proposes the next."""

import json
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from collabopt.components.engine.policy.policy import check_task, parse_policy
from collabopt.components.engine.prescreen.branches import Branch, reasons_not_to_train
from collabopt.components.engine.prescreen.records import write_prescreen
from collabopt.components.engine.progress import emit
from collabopt.components.engine.records import PRESCREEN_FILE
from collabopt.components.engine.search.budget import Budget, budget_of, is_spent
from collabopt.components.engine.search.finished import Finished
from collabopt.components.engine.search.found import LEAVES, finished_with, take_leaves
from collabopt.components.engine.search.left_out import write_left_out
from collabopt.components.engine.search.ongoing import Ongoing
from collabopt.components.engine.search.records import STATE_FILE, SearchState, read_state, write_state
from collabopt.components.engine.search.sharing import Place, TrialStages
from collabopt.components.engine.search.space import parse_space
from collabopt.components.engine.search.study import Trial
from collabopt.components.engine.search.terms import Terms, terms_of
from collabopt.components.engine.session import stage_session
from collabopt.components.engine.stage_host import hosted
from collabopt.components.engine.stage_result import StageResult
from collabopt.components.engine.training.task import load_task
from collabopt.components.engine.whole_numbers import as_given

STAGE = "propose"


@hosted
def propose_stage(
    *,
    baseline: str,
    dataset: str,
    before: str,
    leaves: Iterable[str],
    output: str,
    stages: Mapping[str, Mapping[str, str]],
    space: str,
    policy: str,
    parameters: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, object]],
    budget_trials: int,
    budget_epochs: int,
    budget_minutes: float,
    size: int,
) -> StageResult:
    """Learns from the leaves of the last wave, and says what the next one trains.

    The first wave is the default configuration alone: where no policy is given, it is what has to be beaten. A wave is
    never empty, which Kubeflow could not collect from: once the search has ended, it is the default configuration
    again, all of whose stages the cache has.

    Args:
        baseline: Directory of the baseline.
        dataset: `Dataset` directory.
        before: Directory that the stage before the last wave has written; "" before the first.
        leaves: Directories of the last wave's leaves.
        output: Directory to write.
        stages: Stage that is grown -> its `parent` and its `technique`.
        space: The space, as YAML; "" for the default one.
        policy: Policy of the gate, as YAML; "" to beat the default configuration.
        parameters: Pipeline parameter -> value.
        settings: Stage name -> hyperparameter -> value.
        budget_trials: Most trials.
        budget_epochs: Most epochs of training over all stages; 0 for no limit.
        budget_minutes: Wall time since the first proposal after which no wave is proposed; 0 for no limit.
        size: Most trials of the wave; 0 to end the search, for the gate.

    Returns:
        Under `trials` the wave as JSON: a list with, for every stage of each trial, `<stage>_stage` (its name),
        `<stage>_overrides` and `<stage>_skip`.

    Raises:
        CollaboptError: Space, policy, budget or a setting is not legal.
    """
    with stage_session(STAGE):
        found = Path(output)
        shutil.copytree(before, found) if before else (found / LEAVES).mkdir(parents=True)
        take_leaves(map(Path, leaves), found)
        finished = finished_with(Path(baseline), Path(dataset), found)
        given = {name: as_given(value) for name, value in parameters.items()}
        limits = {"trials": budget_trials, "epochs": budget_epochs or None, "minutes": budget_minutes or None}
        budget = budget_of(limits, "budget_{name}={value}")
        terms = _terms(stages, space, given, settings, budget)
        state = _until_now(read_state(found / STATE_FILE) or _begun(terms, policy, finished))
        write_state(state, found / STATE_FILE)
        with tempfile.NamedTemporaryFile() as log:
            search = Ongoing(terms, found, state, finished, Path(log.name))
            wave, account = _propose(search, size if before else None, found)
        emit(STAGE, "finished", metrics={"trials": len(wave)})
        return StageResult({}, account, {"trials": json.dumps(wave)})


def _propose(search: Ongoing, size: int | None, found: Path) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The next wave, and what the search has cost so far; no size is asked for at first."""
    if size is None:
        search.foresee_default()
        return [_item(search.terms.stages([search.terms.default])[0], search)], {}
    _learn(search)
    if size == 0:
        _end(search, found)
        return [], _account(search, is_spent(search.terms.budget, search.used(search.study())))
    wave, ended_by = _wave(search, size)
    return wave, _account(search, ended_by)


def _terms(
    stages: Mapping[str, Mapping[str, str]],
    space: str,
    parameters: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, object]],
    budget: Budget,
) -> Terms:
    return terms_of(_parents_first(stages), parameters, settings, parse_space(space) if space else None, budget)


def _parents_first(stages: Mapping[str, Mapping[str, str]]) -> tuple[Place, ...]:
    """The places in the order that planning needs, and always the same one: Kubeflow keeps none in a dict."""

    def depth(name: str) -> int:
        return 1 + depth(stages[name]["parent"]) if name in stages else 0

    ordered = sorted(stages, key=lambda name: (depth(name), name))
    return tuple(Place(name, stages[name]["parent"], stages[name]["technique"]) for name in ordered)


def _begun(terms: Terms, policy: str, finished: Finished) -> SearchState:
    check_task(parse_policy(policy), load_task(next(iter(finished.records.values())).task))
    origin = {"space": terms.space.as_yaml()}
    return SearchState(origin=origin, run_id="", budget=terms.budget, policy=policy, begun=datetime.now(UTC))


def _until_now(state: SearchState) -> SearchState:
    now = datetime.now(UTC)
    return state.model_copy(update={"minutes": (now - (state.begun or now)).total_seconds() / 60})


def _learn(search: Ongoing) -> None:
    """Answers every trial whose leaves are all trained, or left out."""
    search.settle_policy()
    study = search.study()
    search.catch_up(study)
    stages = search.stages(study)
    known = {*search.finished.records, *search.state.left_out}
    over = [
        trial for trial in study.trials() if not trial.answered and known.issuperset(_leaves_of(stages[trial.number]))
    ]
    if over:
        search.tell(study, over, search.foresee(study, over))


def _wave(search: Ongoing, size: int) -> tuple[list[dict[str, Any]], str]:
    """What is trained next, and what has ended the search; "" as long as it goes on."""
    study = search.study()
    wave: list[Trial] = []
    ended_by = is_spent(search.terms.budget, search.used(study))
    if not ended_by:
        wave, why_no_more = search.next_wave(study, size, apart=True)
        ended_by = "" if wave else why_no_more
    if wave:
        search.foresee(study, wave)
    stages = search.stages(study)
    return [_item(stages[trial.number], search) for trial in wave] or [_item(stages[0], search)], ended_by


def _account(search: Ongoing, ended_by: str) -> dict[str, str]:
    """What the search has cost, and what sharing has saved; shown with the artifact."""
    study = search.study()
    used = search.used(study)
    progress = search.progress(search.stages(study), study.answered())
    return {
        "trials": str(used.trials),
        "epochs": str(used.epochs),
        "minutes": f"{used.minutes:.1f}",
        "trainings": str(progress.trainings),
        "trainings_without_sharing": str(progress.trainings_without_sharing),
        "ended_by": ended_by,
    }


def _item(trial: TrialStages, search: Ongoing) -> dict[str, Any]:
    """What the stages of a trial are told."""
    finished, left_out = search.finished.records, search.state.left_out
    branches = {name: Branch(stage.place.parent, stage.place.technique) for name, stage in trial.items()}
    missed = {
        name: [left_out[stage.name]]
        for name, stage in trial.items()
        if stage.is_leaf and stage.name in left_out and stage.name not in finished
    }
    reasons = reasons_not_to_train(branches, missed)
    item: dict[str, Any] = {}
    for name, stage in trial.items():
        item[f"{name}_stage"] = stage.name
        item[f"{name}_overrides"] = dict(stage.settings)
        item[f"{name}_skip"] = "" if stage.name in finished else reasons[name]
    return item


def _end(search: Ongoing, directory: Path) -> None:
    study = search.study()
    answered = study.answered()
    progress = search.progress(search.stages(study), answered)
    write_left_out(progress, search.baseline, directory / LEAVES)
    write_prescreen(search.predicted(study, answered), directory / PRESCREEN_FILE)


def _leaves_of(trial: TrialStages) -> list[str]:
    return [stage.name for stage in trial.values() if stage.is_leaf]
