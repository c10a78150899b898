"""When a schedule fires: cron expressions and intervals, read as Kubeflow's scheduler reads them, but more strictly.

Kubeflow parses cron with robfig/cron 1.2: six fields, seconds first. The five fields of a crontab it takes for seconds
to months, without a word: "0 3 * * *", meant as daily at 03:00, fires hourly at three minutes past. Here five fields
are what they are everywhere else, and what is sent always has six.
"""

import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from collabopt.components.engine.errors import CollaboptError

_MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
_DAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
_ITEM = re.compile(r"(?P<first>[*?]|\w+)(-(?P<last>\w+))?(/(?P<step>\d+))?")
_INTERVAL = re.compile(r"(\d+w)?(\d+d)?(\d+h)?(\d+m)?(\d+s)?", re.ASCII)
_UNIT_SECONDS = {"w": 7 * 24 * 3600, "d": 24 * 3600, "h": 3600, "m": 60, "s": 1}


@dataclass(frozen=True)
class Trigger:
    """When a schedule fires; either by cron or by interval.

    Attributes:
        cron: Six fields, seconds first, in the server's time zone; "" where there is an interval.
        interval_seconds: Seconds between two runs, the first one interval after the start; 0 where there is a cron.
        start: Nothing fires before.
        end: Nothing fires after.
    """

    cron: str = ""
    interval_seconds: int = 0
    start: datetime | None = None
    end: datetime | None = None


@dataclass(frozen=True)
class _Field:
    """A field of a cron expression: its name, bounds, and names for its values from the lowest on."""

    name: str
    low: int
    high: int
    names: tuple[str, ...] = ()


_FIELDS = (
    _Field("second", 0, 59),
    _Field("minute", 0, 59),
    _Field("hour", 0, 23),
    _Field("day of month", 1, 31),
    _Field("month", 1, 12, _MONTHS),
    _Field("day of week", 0, 6, _DAYS),
)


def read_trigger(cron: str | None, every: str | None, start: str | None, end: str | None, now: datetime) -> Trigger:
    """Reads `--cron` or `--every`, `--start` and `--end`.

    Args:
        cron: Five fields (minutes first) or six (seconds first).
        every: An interval such as `6h`, `1d`, `1h30m`.
        start: ISO 8601 date or time, UTC where it names no offset.
        end: Likewise.
        now: What is next is looked for after this time.

    Raises:
        CollaboptError: One of them is malformed, or nothing would ever fire.
    """
    if (cron is None) == (every is None):
        raise CollaboptError(
            "a schedule needs either a cron expression or an interval",
            where="--cron, --every",
            todo='give one of them: --cron "0 3 * * *" or --every 6h',
        )
    trigger = Trigger(
        cron="" if cron is None else _six_fields(cron),
        interval_seconds=0 if every is None else _interval(every),
        start=_time(start, "--start"),
        end=_time(end, "--end"),
    )
    if not next_times(trigger, now, 1):
        raise CollaboptError(
            "nothing would ever fire",
            where=", ".join(f"--{name} {value}" for name, value in _given(cron, every, start, end).items()),
            todo="choose days that exist, and an end after the first time",
        )
    return trigger


def next_times(trigger: Trigger, after: datetime, count: int) -> list[datetime]:
    """The next times at which a trigger fires, if the server's time zone is UTC, which is its default.

    Args:
        trigger: A trigger that `read_trigger` accepts.
        after: Time after which to look; for an interval without a start, the time at which the schedule is created.
        count: At most so many.
    """
    begin = after if trigger.start is None else max(after, trigger.start)
    times = _cron_times(trigger.cron, begin) if trigger.cron else _interval_times(trigger, after)
    return list(
        itertools.islice(itertools.takewhile(lambda time: trigger.end is None or time <= trigger.end, times), count)
    )


def describe_trigger(trigger: Trigger) -> str:
    """A trigger in words."""
    if not trigger.cron:
        return f"every {_span(trigger.interval_seconds)}"
    from cronsim import CronSim

    return CronSim(_for_cronsim(trigger.cron), datetime.now(UTC)).explain()


def _given(cron: str | None, every: str | None, start: str | None, end: str | None) -> dict[str, str]:
    options = {"cron": cron, "every": every, "start": start, "end": end}
    return {name: value for name, value in options.items() if value is not None}


def _six_fields(expression: str) -> str:
    texts = expression.split()
    if len(texts) == 5:
        texts = ["0", *texts]
    if len(texts) != 6:
        raise CollaboptError(
            f"{len(texts)} fields are no cron expression; it has five (minute, hour, day of month, month, day of week) "
            "or six, with the second in front",
            where=f'--cron "{expression}"',
            todo='for example --cron "0 3 * * *" (daily at 03:00) or --cron "0 */15 * * * *" (every 15 minutes)',
        )
    for text, field in zip(texts, _FIELDS, strict=True):
        for item in text.split(","):
            try:
                _bounds(item, field)
            except ValueError as error:
                raise CollaboptError(
                    f"the {field.name} '{text}' does not read as cron: {error}",
                    where=f'--cron "{expression}"',
                    todo=f"write * or values {_legal(field)}, as N, N-M, */N or a list of these with commas",
                ) from error
    return " ".join(texts)


def _legal(field: _Field) -> str:
    named = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    return f"from {field.low} to {field.high}{named}"


def _bounds(item: str, field: _Field) -> tuple[int, int, int]:
    """First, last and step of one item of a field.

    Raises:
        ValueError: It is none; says why.
    """
    match = _ITEM.fullmatch(item)
    if match is None:
        raise ValueError(f"'{item}' is not understood")
    first, last, step = match["first"], match["last"], match["step"]
    if first in "*?":
        if last:
            raise ValueError(f"'{item}' is not a range")
        low, high = field.low, field.high
    else:
        low = _value(first, field)
        high = _value(last, field) if last else field.high if step else low
    if low > high:
        raise ValueError(f"{first} comes after {last}")
    if step and int(step) == 0:
        raise ValueError("a step of 0")
    return low, high, int(step or 1)


def _value(text: str, field: _Field) -> int:
    if text.upper() in field.names:
        return field.names.index(text.upper()) + field.low
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"'{text}' is not a number")
    if not field.low <= int(text) <= field.high:
        hint = "; Sunday is 0" if text == "7" and field.names == _DAYS else ""
        raise ValueError(f"{text} is not {_legal(field)}{hint}")
    return int(text)


def _for_cronsim(cron: str) -> str:
    """The same expression with only what robfig/cron and cronsim read alike: `*` with a step, and plain ranges.

    Where day of month or day of week has a `*`, both must match, else one of them; cronsim looks for it in front.
    """
    return " ".join(
        ",".join(sorted((_plain(item, field) for item in text.split(",")), key=lambda item: item[0] != "*"))
        for text, field in zip(cron.split(), _FIELDS, strict=True)
    )


def _plain(item: str, field: _Field) -> str:
    low, high, step = _bounds(item, field)
    if item[0] in "*?":
        return "*" if step == 1 else f"*/{step}"
    if low == high:
        return str(low)
    return f"{low}-{high}" if step == 1 else f"{low}-{high}/{step}"


def _cron_times(cron: str, after: datetime) -> Iterator[datetime]:
    from cronsim import CronSim, CronSimError

    try:
        yield from CronSim(_for_cronsim(cron), after)
    except (CronSimError, OverflowError):  # the 31st of February; after the year 9999
        return


def _interval_times(trigger: Trigger, after: datetime) -> Iterator[datetime]:
    try:
        interval = timedelta(seconds=trigger.interval_seconds)
        first = after if trigger.start is None else trigger.start
        skipped = max(0, (after - first) // interval)
        for number in itertools.count(1):
            yield first + (skipped + number) * interval
    except OverflowError:  # after the year 9999
        return


def _interval(text: str) -> int:
    seconds = sum(int(part[:-1]) * _UNIT_SECONDS[part[-1]] for part in re.findall(r"\d+[wdhms]", text))
    if not _INTERVAL.fullmatch(text) or seconds == 0:
        raise CollaboptError(
            f"'{text}' does not read as an interval",
            where=f"--every {text}",
            todo="write numbers with w, d, h, m or s: 6h, 1d, 1h30m",
        )
    return seconds


def _span(seconds: int) -> str:
    parts = []
    for unit, size in _UNIT_SECONDS.items():
        number, seconds = divmod(seconds, size)
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts)


def _time(text: str | None, option: str) -> datetime | None:
    if text is None:
        return None
    try:
        time = datetime.fromisoformat(text)
    except ValueError as error:
        raise CollaboptError(
            f"'{text}' does not read as a time",
            where=option,
            todo="write ISO 8601, as 2030-01-31, 2030-01-31T03:00 (UTC) or 2030-01-31T03:00+01:00",
        ) from error
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
