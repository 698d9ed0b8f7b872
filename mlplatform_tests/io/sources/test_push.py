from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from mlplatform.domain.families import Families
from mlplatform.domain.observations import admit
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import quarantine_rows
from mlplatform.io.sources.push import Pushed, PushSource
from mlplatform_tests.io.racing import race


@pytest.fixture
def source(store: ObjectStore) -> PushSource:
    return PushSource("pushed", store)


def test_an_empty_inbox_gives_nothing(source: PushSource) -> None:
    assert source.available(0) == 0
    assert source.read(0) == []


def test_what_was_pushed_is_read_in_its_order_with_positions_from_one(source: PushSource) -> None:
    time = datetime(2020, 1, 2, tzinfo=UTC)
    source.push([Pushed("a", 1.5, "x", time), Pushed("b", 2.5, "y", time)])
    source.push([Pushed("a", 3.5, "z", time)])
    found = source.read(0)
    assert [(s.source_position, s.series_id, s.value, s.observation_id, s.event_time) for s in found] == [
        (1, "a", 1.5, "x", time),
        (2, "b", 2.5, "y", time),
        (3, "a", 3.5, "z", time),
    ]
    assert source.available(0) == 3


@pytest.mark.parametrize(
    ("after", "limit", "expected"),
    [(0, None, [1, 2, 3]), (0, 2, [1, 2]), (1, 1, [2]), (3, 5, []), (0, 0, [])],
)
def test_a_read_gives_what_follows_and_takes_nothing_away(
    source: PushSource, after: int, limit: int | None, expected: list[int]
) -> None:
    source.push([Pushed("a", value) for value in (1, 2, 3)])
    for _ in range(2):
        assert [s.source_position for s in source.read(after, limit)] == expected


def test_another_process_reads_what_was_pushed(store: ObjectStore, source: PushSource) -> None:
    source.push([Pushed("a", 1)])
    assert PushSource("pushed", store).read(0) == source.read(0)


@pytest.mark.parametrize(
    "value", [0.1 + 0.2, -0.0, 7, 10**400, True, None, "text", "\ud800", [1, {"a": 2}], math.inf]
)
def test_any_json_goes_through_the_inbox_unchanged(source: PushSource, value: object) -> None:
    source.push([Pushed("a", value)])
    assert repr(source.read(0)[0].value) == repr(value)


def test_whatever_was_pushed_is_admitted_or_lands_in_the_quarantine(source: PushSource) -> None:
    poison = [10**400, True, None, "text", "\ud800", [1], {}, math.nan, math.inf, -math.inf, 1e300]
    source.push([Pushed("a", value) for value in [1.0, *poison, 2.0]])
    accepted, refused = admit(source.read(0), {}, set(), Families())
    assert [(o.offset, o.value) for o in accepted] == [(0, 1.0), (1, 2.0)]
    assert len(refused) == len(poison)
    assert len(quarantine_rows(refused)) == len(poison)


def test_without_a_time_of_their_own_observations_have_that_of_the_push_in_order(source: PushSource) -> None:
    before = datetime.now(UTC)
    source.push([Pushed("a", value) for value in range(3)])
    source.push([Pushed("a", 3)])
    times = [s.event_time for s in source.read(0)]
    assert times == sorted(set(times))
    assert before <= times[0]
    assert times[-1] <= datetime.now(UTC)


def test_without_an_id_of_their_own_observations_have_one_that_nobody_else_has(source: PushSource) -> None:
    source.push([Pushed("a", 1), Pushed("a", 1)])
    assert len({s.observation_id for s in source.read(0)}) == 2


def test_of_eight_that_push_at_once_nothing_is_lost_and_nothing_comes_twice_or_late(
    store: ObjectStore,
) -> None:
    def push(number: int) -> None:
        for turn in range(3):
            PushSource("pushed", store).push([Pushed("a", 10 * number + turn)])

    assert race(8, push) == [None] * 8
    found = PushSource("pushed", store).read(0)
    assert [s.source_position for s in found] == list(range(1, 25))
    assert sorted(s.value for s in found) == [10 * number + turn for number in range(8) for turn in range(3)]
    times = [s.event_time for s in found]
    assert times == sorted(set(times))
