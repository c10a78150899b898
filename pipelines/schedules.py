"""Recurring runs of Kubeflow Pipelines, by name. Kubeflow neither updates one nor keeps their names apart; this does.

A schedule is replaced in an order in which no two of a name ever run and at least one always exists:

1. the new one is created, paused, also where there is no other that is known of;
2. the others are deleted; their runs that are under way go on;
3. the new one is resumed, unless another command has deleted it meanwhile.

A schedule is resumed only after all that were there when it was created are gone, so that two commands at the same time
cannot leave two running either, wherever they are cut off.

Killed in between, the same command ends in the same state when it is run again: whatever of that name it finds is
replaced. Where two commands replace the same name at once, the later schedule stays, and the other command says so.
"""

import contextlib
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines import PIPELINES
from collabopt.pipelines.kubeflow import Kubeflow, NotFound
from collabopt.pipelines.submission import Submission, experiment_id
from collabopt.pipelines.triggers import Trigger

if TYPE_CHECKING:
    from kfp_server_api import V2beta1RecurringRun

_PAGE_SIZE = 100
_DESCRIPTION = re.compile(r"collabopt, request ([0-9a-f]{64})(?:, in the place of ([\w, -]+))?")


@dataclass(frozen=True)
class Schedule:
    """A recurring run as the server knows it.

    Attributes:
        id: Its id.
        name: Its name; others may have the same.
        pipeline: Name of the embedded pipeline; "" where it runs an uploaded one.
        trigger: When it fires.
        enabled: Whether it fires at all.
        max_concurrency: How many of its runs may be under way at once.
        catch_up: Whether times that were missed are made up for.
        created: When it was created.
        digest: Digest of the request that made it; "" if it was not made here.
        replaces: Ids of those that it was made in the place of.
    """

    id: str
    name: str
    pipeline: str
    trigger: Trigger
    enabled: bool
    max_concurrency: int
    catch_up: bool
    created: datetime
    digest: str = ""
    replaces: tuple[str, ...] = ()


@dataclass(frozen=True)
class Wanted:
    """A schedule as it should be.

    Attributes:
        name: Its name.
        submission: What it runs.
        trigger: When it fires.
        max_concurrency: How many of its runs may be under way at once, 1 to 10.
        catch_up: Whether times that were missed, while it was paused say, are made up for, each by a run.
        paused: Whether it waits for `resume`.
    """

    name: str
    submission: Submission
    trigger: Trigger
    max_concurrency: int = 1
    catch_up: bool = False
    paused: bool = False


@dataclass(frozen=True)
class Placed:
    """What has become of a wanted schedule.

    Attributes:
        id: Id of the schedule that now bears the name.
        replaced: Ids of those that bore it before.
        unchanged: Whether it was there already, and was at most paused or resumed.
    """

    id: str
    replaced: tuple[str, ...] = ()
    unchanged: bool = False


def place_schedule(kubeflow: Kubeflow, wanted: Wanted) -> Placed:
    """Makes a schedule the only one of its name. One that is the same already stays, and keeps its count of time.

    Raises:
        CollaboptError: The server refuses, another pipeline has a schedule of that name, or another command has placed
            one at the same time. Run again, it ends in the same state.
    """
    present = named(list_schedules(kubeflow), wanted.name)
    _check_ours(present)
    body = _request(wanted, experiment_id(kubeflow, wanted.submission.experiment))
    digest = _digest(body)
    if [schedule.digest for schedule in present] == [digest]:
        set_enabled(kubeflow, present[0], not wanted.paused)
        return Placed(present[0].id, unchanged=True)
    body.description = _describe(digest, present)
    body.mode = "DISABLE"
    create = kubeflow.client.recurring_runs.recurring_run_service_create_recurring_run
    new = _schedule(kubeflow.ask(f"create schedule '{wanted.name}'", create, body))
    try:
        replaced = _replace_others(kubeflow, new, paused=wanted.paused)
    except CollaboptError as error:
        raise CollaboptError(
            f"schedule '{wanted.name}' is not yet the only one of its name: {error.what}",
            where=error.where,
            todo="run the same command again; until then nothing runs twice",
        ) from error
    if replaced is None:
        raise CollaboptError(
            f"another command has placed a schedule '{wanted.name}' at the same time",
            where=kubeflow.host,
            todo="see whether it is the one that is wanted: collabopt schedule list",
        )
    return Placed(new.id, replaced)


def list_schedules(kubeflow: Kubeflow) -> list[Schedule]:
    """All schedules of the namespace, oldest first.

    Raises:
        CollaboptError: The server refuses or cannot be reached.
    """
    return sorted(map(_schedule, _recurring_runs(kubeflow)), key=_age)


def named(schedules: Iterable[Schedule], name: str) -> list[Schedule]:
    """Those that have a name, or an id."""
    return [schedule for schedule in schedules if name in (schedule.name, schedule.id)]


def find_schedules(kubeflow: Kubeflow, name: str) -> list[Schedule]:
    """The schedules of a name, or the one of an id.

    Raises:
        CollaboptError: There is none.
    """
    present = list_schedules(kubeflow)
    found = named(present, name)
    if not found:
        names = ", ".join(sorted({schedule.name for schedule in present})) or "none"
        raise CollaboptError(
            f"there is no schedule '{name}'",
            where=f"{kubeflow.host}, namespace '{kubeflow.namespace}'" if kubeflow.namespace else kubeflow.host,
            todo=f"schedules: {names}",
        )
    return found


def find_schedule(kubeflow: Kubeflow, name: str) -> Schedule:
    """The only schedule of a name, or the one of an id.

    Raises:
        CollaboptError: There is none, or several.
    """
    found = find_schedules(kubeflow, name)
    if len(found) > 1:
        raise CollaboptError(
            f"there are {len(found)} schedules '{name}'",
            where=kubeflow.host,
            todo=f"name one by its id: {', '.join(schedule.id for schedule in found)}",
        )
    return found[0]


def set_enabled(kubeflow: Kubeflow, schedule: Schedule, enabled: bool) -> None:
    """Pauses or resumes a schedule, if it is not so already.

    Raises:
        NotFound: It is gone.
        CollaboptError: The server refuses or cannot be reached.
    """
    runs = kubeflow.client.recurring_runs
    if schedule.enabled == enabled:
        return
    if enabled:
        kubeflow.ask(f"resume '{schedule.name}'", runs.recurring_run_service_enable_recurring_run, schedule.id)
    else:
        kubeflow.ask(f"pause '{schedule.name}'", runs.recurring_run_service_disable_recurring_run, schedule.id)


def delete_schedule(kubeflow: Kubeflow, schedule: Schedule) -> None:
    """Deletes a schedule; its runs stay, and those that are under way go on.

    A schedule owns the workflows of its runs (kubeflow/pipelines backend/src/apiserver/resource/resource_manager.go,
    CreateRun): by default Kubernetes would delete them with it, and a training that is under way.

    Raises:
        NotFound: It is gone.
        CollaboptError: The server refuses or cannot be reached.
    """
    from kfp_server_api import V2beta1DeletePropagationPolicy

    delete = kubeflow.client.recurring_runs.recurring_run_service_delete_recurring_run
    policy = V2beta1DeletePropagationPolicy.ORPHAN
    kubeflow.ask(f"delete '{schedule.name}'", delete, schedule.id, propagation_policy=policy)


def _replace_others(kubeflow: Kubeflow, new: Schedule, *, paused: bool) -> tuple[str, ...] | None:
    """Steps 2 and 3.

    Args:
        kubeflow: The server.
        new: The schedule that was created in step 1.
        paused: Whether it is to stay paused.

    Returns:
        The ids of the others; None where one of them is later than the new one, which then is deleted, or where
        another command has deleted it.
    """
    others = [other for other in named(list_schedules(kubeflow), new.name) if other.id != new.id]
    if any(_is_later(other, new) for other in others):
        _delete_if_there(kubeflow, new)
        return None
    for other in others:
        _delete_if_there(kubeflow, other)
    try:
        set_enabled(kubeflow, new, not paused)
    except NotFound:
        return None
    return tuple(other.id for other in others)


def _delete_if_there(kubeflow: Kubeflow, schedule: Schedule) -> None:
    with contextlib.suppress(NotFound):
        delete_schedule(kubeflow, schedule)


def _check_ours(present: Iterable[Schedule]) -> None:
    for schedule in present:
        if schedule.pipeline not in PIPELINES:
            what = f"another pipeline, '{schedule.pipeline}'" if schedule.pipeline else "an uploaded pipeline"
            raise CollaboptError(
                f"there is a schedule '{schedule.name}' that runs {what}",
                where=schedule.id,
                todo="choose another name with --schedule-name, or delete it first: "
                f"collabopt schedule delete {schedule.id}",
            )


def _request(wanted: Wanted, experiment: str) -> "V2beta1RecurringRun":
    from kfp_server_api import V2beta1RecurringRun

    return V2beta1RecurringRun(
        display_name=wanted.name,
        trigger=_api_trigger(wanted.trigger),
        max_concurrency=str(wanted.max_concurrency),
        no_catchup=not wanted.catch_up,
        **wanted.submission.fields(experiment),
    )


def _digest(body: "V2beta1RecurringRun") -> str:
    """Tells requests apart; a recurring run cannot be changed, so that it stays what its digest says."""
    return hashlib.sha256(json.dumps(body.to_dict(), sort_keys=True, default=str).encode()).hexdigest()


def _describe(digest: str, present: Iterable[Schedule]) -> str:
    place = ", ".join(schedule.id for schedule in present)
    return f"collabopt, request {digest}" + (f", in the place of {place}" if place else "")


def _is_later(one: Schedule, other: Schedule) -> bool:
    """Whether one schedule was asked for after another: both commands have to see it alike.

    Kubeflow keeps whole seconds; of two in the same second, one may say that the other was there before it.
    """
    if one.id in other.replaces or other.id in one.replaces:
        return other.id in one.replaces
    return _age(one) > _age(other)


def _api_trigger(trigger: Trigger) -> Any:
    from kfp_server_api import V2beta1CronSchedule, V2beta1PeriodicSchedule, V2beta1Trigger

    times = {"start_time": trigger.start, "end_time": trigger.end}
    if trigger.cron:
        return V2beta1Trigger(cron_schedule=V2beta1CronSchedule(cron=trigger.cron, **times))
    return V2beta1Trigger(
        periodic_schedule=V2beta1PeriodicSchedule(interval_second=str(trigger.interval_seconds), **times)
    )


def _recurring_runs(kubeflow: Kubeflow) -> Iterator["V2beta1RecurringRun"]:
    token = ""
    while True:
        page = kubeflow.ask(
            "list the schedules",
            kubeflow.client.recurring_runs.recurring_run_service_list_recurring_runs,
            namespace=kubeflow.namespace,
            page_size=_PAGE_SIZE,
            page_token=token,
        )
        yield from page.recurring_runs or ()
        token = page.next_page_token
        if not token:
            return


def _schedule(run: "V2beta1RecurringRun") -> Schedule:
    match = _DESCRIPTION.fullmatch(run.description or "")
    return Schedule(
        id=run.recurring_run_id,
        name=run.display_name or "",
        pipeline=_pipeline_name(run.pipeline_spec),
        trigger=_own_trigger(run),
        enabled=run.mode == "ENABLE" or run.status == "ENABLED",
        max_concurrency=int(run.max_concurrency or 1),
        catch_up=not run.no_catchup,
        created=run.created_at or datetime.fromtimestamp(0, UTC),
        digest=match[1] if match else "",
        replaces=tuple(match[2].split(", ")) if match and match[2] else (),
    )


def _own_trigger(run: "V2beta1RecurringRun") -> Trigger:
    cron = run.trigger and run.trigger.cron_schedule
    if cron:
        return Trigger(cron=cron.cron or "", start=cron.start_time, end=cron.end_time)
    interval = run.trigger and run.trigger.periodic_schedule
    if interval:
        seconds = int(interval.interval_second or 0)
        return Trigger(interval_seconds=seconds, start=interval.start_time, end=interval.end_time)
    return Trigger()


def _pipeline_name(specification: Any) -> str:
    pipeline = (specification or {}).get("pipeline_spec", specification) or {}
    return str(pipeline.get("pipelineInfo", {}).get("name", ""))


def _age(schedule: Schedule) -> tuple[datetime, str]:
    return schedule.created, schedule.id
