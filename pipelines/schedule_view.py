"""What `collabopt schedule` shows."""

import dataclasses
import json
from collections.abc import Iterable
from datetime import UTC, datetime

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table
from rich.text import Text

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.kubeflow import Kubeflow
from collabopt.pipelines.schedules import Placed, Schedule, Wanted
from collabopt.pipelines.triggers import Trigger, describe_trigger, next_times, read_trigger

_SHOWN_TIMES = 3


def print_placed(console: Console, kubeflow: Kubeflow, wanted: Wanted, placed: Placed) -> None:
    """Prints what has become of a schedule and when it fires next."""
    lines = [f"schedule '{wanted.name}' ({placed.id}) {_what(placed)}{'; it is paused' if wanted.paused else ''}"]
    when = describe_trigger(wanted.trigger)
    lines.append(f"when: {when}, cron '{wanted.trigger.cron}'" if wanted.trigger.cron else f"when: {when}")
    # An interval counts from when the schedule was made.
    if not placed.unchanged or wanted.trigger.cron or wanted.trigger.start:
        times = next_times(wanted.trigger, datetime.now(UTC), _SHOWN_TIMES)
        zone = "UTC, if that is the cron time zone of the server" if wanted.trigger.cron else "UTC"
        lines.append(f"next: {', '.join(map(_minute, times))} ({zone})")
    lines.append(f"link: {kubeflow.link('recurringrun', placed.id)}")
    for line in lines:
        console.print(Text(line), soft_wrap=True)


def print_schedules(console: Console, schedules: Iterable[Schedule]) -> None:
    """Prints a table of schedules."""
    now = datetime.now(UTC)
    table = Table(box=SIMPLE)
    for column in ("name", "pipeline"):
        table.add_column(column, overflow="fold")
    for column in ("when", "state", "next (UTC)", "id"):
        table.add_column(column, no_wrap=True)
    for schedule in schedules:
        table.add_row(
            Text(schedule.name),
            Text(schedule.pipeline or "(uploaded)"),
            Text(_when(schedule.trigger)),
            "running" if schedule.enabled else "paused",
            _next(schedule, now),
            schedule.id,
        )
    console.print(table)


def as_json(schedules: Iterable[Schedule]) -> str:
    """The same for programs; times are ISO 8601."""
    rows = [dataclasses.asdict(schedule) for schedule in schedules]
    return json.dumps(rows, indent=2, default=datetime.isoformat)


def _what(placed: Placed) -> str:
    if placed.unchanged:
        return "is as it was"
    return f"replaces {', '.join(placed.replaced)}" if placed.replaced else "is new"


def _when(trigger: Trigger) -> str:
    if trigger.cron:
        return trigger.cron
    return describe_trigger(trigger) if trigger.interval_seconds else "-"


def _next(schedule: Schedule, now: datetime) -> str:
    if not schedule.enabled or not (schedule.trigger.cron or schedule.trigger.interval_seconds):
        return "-"
    if schedule.trigger.cron:
        try:  # others may have made it, in words that only Kubeflow reads
            read_trigger(schedule.trigger.cron, None, None, None, now)
        except CollaboptError:
            return "?"
        if len(schedule.trigger.cron.split()) != 6:
            return "?"
        return ", ".join(map(_minute, next_times(schedule.trigger, now, 1))) or "-"
    # Counted from when it was made; Kubeflow counts anew from a run that it has started late.
    counted = dataclasses.replace(schedule.trigger, start=schedule.trigger.start or schedule.created)
    return "".join(f"~{_minute(time)}" for time in next_times(counted, now, 1)) or "-"


def _minute(time: datetime) -> str:
    return time.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
