from __future__ import annotations

from datetime import UTC, datetime
from itertools import islice

import pytest
from dagster._utils.schedules import is_valid_cron_string, schedule_execution_time_iterator
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from mlplatform.domain.jobs.timing import Cron, Zone, next_times

CRON, ZONE = TypeAdapter(Cron), TypeAdapter(Zone)


@pytest.mark.parametrize(
    ("cron", "zone", "month"),
    [
        ("30 9 * * *", "UTC", 1),
        ("0 0 1 * *", "Europe/Madrid", 1),
        ("*/15 8-10 * * mon-fri", "America/New_York", 6),
        ("@daily", "Asia/Kathmandu", 12),
        ("0 0 * * sun#1", "UTC", 3),
        ("0 0 L * *", "UTC", 3),
        ("15 1,12 29 2 *", "UTC", 3),
        # A night without two o'clock, and one with two of them.
        ("30 2 * * *", "Europe/Madrid", 3),
        ("0 * * * *", "Europe/Madrid", 3),
        ("0 * * * *", "Europe/Madrid", 10),
    ],
)
def test_the_next_times_are_those_of_dagster(cron: str, zone: str, month: int) -> None:
    after = datetime(2026, month, 24, 12, 1, tzinfo=UTC)
    ours = next_times(CRON.validate_python(cron), ZONE.validate_python(zone), after, 40)
    theirs = schedule_execution_time_iterator(after.timestamp(), cron, zone, ascending=True)
    assert [time.astimezone(UTC) for time in ours] == [time.astimezone(UTC) for time in islice(theirs, 40)]


FIELD = st.sampled_from(
    [
        "*",
        "0",
        "5",
        "*/7",
        "1-3",
        "2,4",
        "31",
        "L",
        "7",
        "60",
        "-1",
        "",
        "a",
        "mon",
        "feb",
        "1-",
        "?",
        "H",
        "0/5",
    ]
)


@given(
    st.lists(FIELD, min_size=4, max_size=7).map(" ".join) | st.sampled_from(["@reboot", "@hourly", "", "0"])
)
def test_whatever_is_taken_dagster_takes(cron: str) -> None:
    try:
        CRON.validate_python(cron)
    except ValidationError:
        return
    assert is_valid_cron_string(cron)


@pytest.mark.parametrize(
    ("cron", "said"),
    [
        ("0 0 30 2 *", "no such day"),
        ("0 0 31 2,4 *", "no such day"),
        ("0 0 * * * *", "five fields"),
        ("61 * * * *", "61"),
        ("hello", "hello|fields|column"),
    ],
)
def test_a_line_that_never_comes_or_is_none_is_refused(cron: str, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        CRON.validate_python(cron)
    with pytest.raises(ValidationError, match="no such time zone"):
        ZONE.validate_python("Europe/Atlantis")
