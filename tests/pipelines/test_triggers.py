from datetime import UTC, datetime, timedelta, timezone

import pytest

from collabopt.components.engine.errors import CollaboptError
from collabopt.pipelines.triggers import Trigger, describe_trigger, next_times, read_trigger

NOW = datetime(2026, 1, 30, 22, 59, 58, tzinfo=UTC)


def read(
    cron: str | None = None, every: str | None = None, start: str | None = None, end: str | None = None
) -> Trigger:
    return read_trigger(cron, every, start, end, NOW)


# What robfig/cron v1.2.0, the parser that Kubeflow's API server and scheduler import, gives after NOW.
@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("0 0 3 * * *", "2026-01-31T03:00:00 2026-02-01T03:00:00 2026-02-02T03:00:00"),
        ("30 */20 * * * *", "2026-01-30T23:00:30 2026-01-30T23:20:30 2026-01-30T23:40:30"),
        ("0 0 3 1,15 * MON", "2026-02-01T03:00:00 2026-02-02T03:00:00 2026-02-09T03:00:00"),
        ("0 0 3 */2 * MON", "2026-02-09T03:00:00 2026-02-23T03:00:00 2026-03-09T03:00:00"),
        ("0 0 3 * * 1/2", "2026-02-02T03:00:00 2026-02-04T03:00:00 2026-02-06T03:00:00"),
        ("0 0 3 ? * 2-6", "2026-01-31T03:00:00 2026-02-03T03:00:00 2026-02-04T03:00:00"),
        ("0 0 9 ? * mon-fri", "2026-02-02T09:00:00 2026-02-03T09:00:00 2026-02-04T09:00:00"),
        ("0 5/15 * * * *", "2026-01-30T23:05:00 2026-01-30T23:20:00 2026-01-30T23:35:00"),
        ("0 0 0 29 2 ?", "2028-02-29T00:00:00 2032-02-29T00:00:00 2036-02-29T00:00:00"),
        ("0 0 12 5,? * TUE", "2026-02-03T12:00:00 2026-02-10T12:00:00 2026-02-17T12:00:00"),
        ("0 30 8-18/5 * JAN-MAR,dec SAT,SUN", "2026-01-31T08:30:00 2026-01-31T13:30:00 2026-01-31T18:30:00"),
        ("0 59 23 31 * *", "2026-01-31T23:59:00 2026-03-31T23:59:00 2026-05-31T23:59:00"),
        ("0 */7 * * * *", "2026-01-30T23:00:00 2026-01-30T23:07:00 2026-01-30T23:14:00"),
        ("10-12 0 0 1 1 *", "2027-01-01T00:00:10 2027-01-01T00:00:11 2027-01-01T00:00:12"),
    ],
)
def test_cron_fires_when_kubeflows_parser_says(cron: str, expected: str):
    times = next_times(read(cron), NOW, 3)
    assert [time.strftime("%Y-%m-%dT%H:%M:%S") for time in times] == expected.split()


def test_five_fields_begin_with_the_minute_as_in_a_crontab():
    trigger = read("0  3 * * 1-5")
    assert trigger.cron == "0 0 3 * * 1-5"
    assert next_times(trigger, NOW, 2) == [datetime(2026, 2, 2, 3, tzinfo=UTC), datetime(2026, 2, 3, 3, tzinfo=UTC)]
    assert describe_trigger(trigger) == "At 03:00 on Monday through Friday"


@pytest.mark.parametrize(
    ("cron", "expected"),
    [
        ("75 3 * * *", "the minute '75' does not read as cron: 75 is not from 0 to 59"),
        ("0 24 * * *", "the hour '24'"),
        ("0 0 0 * *", "the day of month '0'"),
        ("0 0 * 13 *", "the month '13'"),
        ("0 0 * * 7", "Sunday is 0"),
        ("60 0 0 * * *", "the second '60'"),
        ("0 3 * * MONDAY", "'MONDAY' is not a number"),
        ("0 3 * JAN-FOO *", "'FOO' is not a number"),
        ("0 9-5 * * *", "9 comes after 5"),
        ("*/0 * * * *", "a step of 0"),
        ("*-5 * * * *", "'*-5' is not a range"),
        ("1,,2 * * * *", "'' is not understood"),
        ("0 3 L * *", "'L' is not a number"),
        ("0 3 * * 5#2", "'5#2' is not understood"),
        ("0 3 ² * *", "'²' is not a number"),
        ("@daily", "1 fields are no cron expression"),
        ("0 0 0 * * * 2030", "7 fields are no cron expression"),
        ("", "0 fields are no cron expression"),
        ("0 0 31 2 *", "nothing would ever fire"),
    ],
)
def test_a_bad_cron_expression_is_refused_by_field(cron: str, expected: str):
    with pytest.raises(CollaboptError) as refusal:
        read(cron)
    assert expected in str(refusal.value)
    assert "--cron" in refusal.value.where
    assert refusal.value.todo


@pytest.mark.parametrize(
    ("every", "seconds", "words"),
    [
        ("6h", 21600, "6h"),
        ("90m", 5400, "1h30m"),
        ("1d", 86400, "1d"),
        ("1w2d", 777600, "1w2d"),
        ("1h30m", 5400, "1h30m"),
    ],
)
def test_intervals(every: str, seconds: int, words: str):
    trigger = read(every=every)
    assert trigger == Trigger(interval_seconds=seconds)
    assert describe_trigger(trigger) == f"every {words}"
    interval = timedelta(seconds=seconds)
    assert next_times(trigger, NOW, 2) == [NOW + interval, NOW + 2 * interval]


@pytest.mark.parametrize("every", ["", "6", "h", "0h", "-6h", "6 h", "1.5h", "30m1h", "6h!"])
def test_a_bad_interval_is_refused(every: str):
    with pytest.raises(CollaboptError, match="does not read as an interval"):
        read(every=every)


def test_start_and_end_bound_the_times_and_are_utc_unless_they_say_otherwise():
    trigger = read("0 3 * * *", start="2026-03-01", end="2026-03-03T04:30+01:00")
    assert trigger.start == datetime(2026, 3, 1, tzinfo=UTC)
    assert trigger.end == datetime(2026, 3, 3, 4, 30, tzinfo=timezone(timedelta(hours=1)))
    assert [time.day for time in next_times(trigger, NOW, 9)] == [1, 2, 3]
    later = read(every="1d", start="2026-01-28T12:00")
    assert next_times(later, NOW, 1) == [datetime(2026, 1, 31, 12, tzinfo=UTC)]
    first = read(every="1d", start="2026-02-28T12:00")
    assert next_times(first, NOW, 1) == [datetime(2026, 3, 1, 12, tzinfo=UTC)]


def test_what_cannot_fire_or_is_not_whole_is_refused():
    for options, expected in (
        ({}, "either a cron expression or an interval"),
        ({"cron": "0 3 * * *", "every": "6h"}, "either a cron expression or an interval"),
        ({"cron": "0 3 * * *", "end": "2026-01-31T02:00"}, "nothing would ever fire"),
        ({"every": "1d", "start": "2026-02-01", "end": "2026-02-01T12:00"}, "nothing would ever fire"),
        ({"every": "6h", "end": "2020-01-01"}, "nothing would ever fire"),
        ({"every": "999999999999999w"}, "nothing would ever fire"),
        ({"every": "1d", "start": "9999-12-31"}, "nothing would ever fire"),
        ({"cron": "0 3 * * *", "start": "9999-12-31T12:00"}, "nothing would ever fire"),
        ({"every": "1d", "start": "tomorrow"}, "'tomorrow' does not read as a time"),
    ):
        with pytest.raises(CollaboptError) as refusal:
            read(**options)
        assert expected in refusal.value.what
