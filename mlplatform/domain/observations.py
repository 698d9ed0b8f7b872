"""Observations: what a source submits, and what the log accepts or refuses."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from numbers import Real
from typing import cast

from mlplatform.domain.families import AbsurdityBand, Families
from mlplatform.errors import PlatformError

# Models square values and multiply the squares: what is larger would stop them at an overflow.
LARGEST = 1e30
# Of the id of a series or of an observation that comes by HTTP.
LONGEST_ID = 200
# A producer's clock may be fast; what is dated later than this would block its series.
BELIEVED_CLOCK_ERROR = timedelta(days=1)


class SourceError(PlatformError):
    """A source cannot be read; the message names the source, the cause and the remedy."""


@dataclass(frozen=True, slots=True)
class Submission:
    """What a source gives for one observation, before anything is known of its worth.

    `source_position` orders the submissions of one source, from 1; `event_time` is aware, or None
    where the source could not read one.
    """

    source: str
    source_position: int
    series_id: str
    observation_id: str
    event_time: datetime | None
    value: object


@dataclass(frozen=True, slots=True)
class Observation:
    """One value of a series; `offset` is its dense position in the series' log, from 0."""

    series_id: str
    offset: int
    observation_id: str
    event_time: datetime
    value: float
    source: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A submission for the quarantine, with the reason."""

    submission: Submission
    reason: str


@dataclass(frozen=True, slots=True)
class Tail:
    """The end of one series' log: what admission and lag features need of the past.

    `values` holds the newest first, as many as the series' family has lags.
    """

    next_offset: int = 0
    last_event_time: datetime | None = None
    values: tuple[float, ...] = ()

    def extended(self, event_time: datetime, value: float, lags: int) -> Tail:
        return Tail(self.next_offset + 1, event_time, (value, *self.values)[:lags])


def admit(
    submissions: Sequence[Submission],
    tails: dict[str, Tail],
    known: set[tuple[str, str]],
    families: Families,
    until: datetime | None = None,
    elsewhere: Collection[str] = (),
) -> tuple[list[Observation], list[Refusal]]:
    """Decides which submissions become observations, in the order of their event times.

    The order in which the submissions are given does not matter. The observations of a series get
    dense offsets after its tail and increasing event times. A refused submission leaves no trace but
    its refusal.

    Args:
        tails: the ends of the series' logs; moved on in place.
        known: the (series_id, observation_id) that the log already holds; grows in place.
        until: the latest event time that is believed; a later one would make all others late.
        elsewhere: series that are not for this log, since others own them.
    """
    accepted: list[Observation] = []
    refused: list[Refusal] = []
    for submission in sorted(submissions, key=_by_event_time):
        series_id = submission.series_id
        family = families.of(series_id) if isinstance(series_id, str) else families.of("")
        tail = tails.get(series_id, Tail())
        reason = _reason_to_refuse(submission, tail, known, family.band, until, elsewhere)
        if reason:
            refused.append(Refusal(submission, reason))
            continue
        # Neither can fail: what is no number or has no time was refused.
        value, event_time = float(cast(float, submission.value)), cast(datetime, submission.event_time)
        accepted.append(
            Observation(
                series_id,
                tail.next_offset,
                submission.observation_id,
                event_time,
                value,
                submission.source,
            )
        )
        tails[series_id] = tail.extended(event_time, value, family.lags)
        known.add((series_id, submission.observation_id))
    return accepted, refused


def _by_event_time(submission: Submission) -> tuple[float, int, str]:
    time = submission.event_time
    return (time.timestamp() if time else math.inf, submission.source_position, submission.source)


def _reason_to_refuse(
    submission,
    tail: Tail,
    known,
    band: AbsurdityBand,
    until: datetime | None,
    elsewhere: Collection[str],
) -> str | None:
    value, event_time = submission.value, submission.event_time
    if not isinstance(submission.series_id, str) or not submission.series_id:
        return "no series_id"
    if submission.series_id in elsewhere:
        return (
            f"elsewhere: series {submission.series_id!r} belongs to a service, which learns it: send it there"
        )
    if isinstance(value, bool) or not isinstance(value, Real):
        return f"not a number: {str(value)[:40]!r}"
    # Compared, not converted: an int may be larger than any float.
    number = cast(float, value)
    if not -math.inf < number < math.inf:
        return f"not finite: {value}"
    if not -LARGEST <= number <= LARGEST:
        return f"too large: its size is above {LARGEST:g}"
    if event_time is None:
        return "no event time"
    if early := _early(event_time, until):
        return early
    if (submission.series_id, submission.observation_id) in known:
        return f"duplicate: observation {submission.observation_id!r} is in the log"
    if late := _late(event_time, tail.last_event_time):
        return late
    return band.reason(number, tail.values)


def untimely(event_time: datetime, last: datetime | None, until: datetime | None) -> str | None:
    """Why an observation of this time cannot follow the last one of its series; None if it can."""
    return _early(event_time, until) or _late(event_time, last)


def following(now: datetime, last: datetime | None) -> datetime:
    """The time of an observation that comes without one: clocks are put back, and tick too slowly."""
    return now if last is None else max(now, last + timedelta(microseconds=1))


def _early(event_time: datetime, until: datetime | None) -> str | None:
    if until is None or event_time <= until:
        return None
    return f"early: {event_time.isoformat()} is still to come"


def _late(event_time: datetime, last: datetime | None) -> str | None:
    if last is None or event_time > last:
        return None
    return f"late: the series is already at {last.isoformat()}"
