"""When a schedule is due: lines of cron in a time zone, as Dagster takes them."""

from __future__ import annotations

from datetime import datetime
from functools import cache
from typing import Annotated
from zoneinfo import ZoneInfo, available_timezones

from pydantic import AfterValidator, StringConstraints

FIELDS = 5
# Any time will do to see whether a line of cron comes to one at all.
SOME_TIME = datetime(2026, 1, 1)


def next_times(cron: str, timezone: str, after: datetime, count: int) -> list[datetime]:
    """The first times behind `after`, in the time zone.

    Of a time that the clock shows twice in one night, this has the first, and Dagster takes the second.
    """
    from croniter import croniter

    times = croniter(cron, after.astimezone(ZoneInfo(timezone)))
    return [times.get_next(datetime) for _ in range(count)]


def _cron(text: str) -> str:
    from croniter import croniter
    from croniter.croniter import CroniterBadDateError, CroniterError

    try:
        fields, *_ = croniter.expand(text)
        if len(fields) != FIELDS:
            raise ValueError("a line of cron has five fields: minute, hour, day, month, day of the week")
        croniter(text, SOME_TIME).get_next()
    except CroniterBadDateError:
        raise ValueError("there is no such day in any year") from None
    except CroniterError as error:
        raise ValueError(str(error)) from None
    return text


def _zone(name: str) -> str:
    if name not in _zones():
        raise ValueError("no such time zone: there are Europe/Madrid, UTC, …")
    return name


@cache
def _zones() -> frozenset[str]:
    return frozenset(available_timezones())


Cron = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_cron)]
Zone = Annotated[str, StringConstraints(max_length=100), AfterValidator(_zone)]
