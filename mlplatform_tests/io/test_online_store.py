from __future__ import annotations

import time
import uuid

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from mlplatform.io.online_store import OnlineStore, OnlineStoreUnavailable
from mlplatform.local.stack import RunningStack
from mlplatform.settings import Settings
from mlplatform_tests.io.racing import race

KEEP = 4


@pytest.fixture(scope="module")
def online(stack: RunningStack) -> OnlineStore:
    return OnlineStore(Settings(stack.variables).redis_url)


@pytest.fixture
def series() -> str:
    return new_series()


def new_series() -> str:
    return f"series {uuid.uuid4().hex}"


def newest(offset: int, keep: int = KEEP) -> list[float]:
    """The newest values at an offset of a series whose value is a tenth of its offset."""
    return [each / 10 for each in range(offset, max(offset - keep, -1), -1)]


def test_an_unknown_series_has_no_values(online: OnlineStore, series: str) -> None:
    assert online.read(series) is None


def test_published_values_come_back_bit_for_bit(online: OnlineStore, series: str) -> None:
    values = [0.1 + 0.2, -0.0, 5e-324, 1e300, 1 / 3]
    assert online.publish([(series, 9, values)]) == 1
    offset, found = online.read(series)
    assert offset == 9
    assert list(map(repr, found)) == list(map(repr, values))


def test_many_series_are_published_in_one_call(online: OnlineStore) -> None:
    names = [new_series() for _ in range(148)]
    assert online.publish((name, at, newest(at)) for at, name in enumerate(names)) == 148
    assert [online.read(name) for name in names] == [(at, newest(at)) for at in range(148)]


def test_a_redis_that_has_forgotten_the_script_is_told_it_again(online: OnlineStore, series: str) -> None:
    online.publish([(series, 0, newest(0))])
    online._redis.script_flush()
    assert online.publish([(series, 1, newest(1)), (new_series(), 0, newest(0))]) == 2
    assert online.read(series) == (1, newest(1))


def test_publishing_nothing_changes_nothing(online: OnlineStore) -> None:
    assert online.publish([]) == 0


def test_publishing_again_changes_nothing(online: OnlineStore, series: str) -> None:
    online.publish([(series, 5, newest(5))])
    assert online.publish([(series, 5, [99.0] * KEEP)]) == 0
    assert online.read(series) == (5, newest(5))


def test_a_repeated_push_changes_nothing_and_answers_the_same(online: OnlineStore, series: str) -> None:
    online.push(series, 0, 0.0, KEEP)
    first = online.push(series, 1, 0.1, KEEP)
    assert online.push(series, 1, 0.1, KEEP) == first == [0.1, 0.0]


def test_a_push_keeps_only_the_newest(online: OnlineStore, series: str) -> None:
    for offset in range(10):
        assert online.push(series, offset, offset / 10, KEEP) == newest(offset)


@given(order=st.permutations(range(6)))
@hypothesis_settings(max_examples=40)
def test_in_any_order_of_publishing_the_newest_stays(online: OnlineStore, order: list[int]) -> None:
    series = new_series()
    for offset in order:
        online.publish([(series, offset, newest(offset))])
    assert online.read(series) == (5, newest(5))


@given(order=st.permutations(range(6)), last=st.integers(0, 5))
@hypothesis_settings(max_examples=60)
def test_in_any_order_of_pushes_values_are_consecutive_and_publishing_makes_them_whole(
    online: OnlineStore, order: list[int], last: int
) -> None:
    series = new_series()
    for offset in order[: last + 1]:
        online.push(series, offset, offset / 10, KEEP)
    head = max(order[: last + 1])
    offset, values = online.read(series)
    assert offset == head
    assert values == newest(head)[: len(values)]
    assert values
    online.publish([(series, head, newest(head))])
    assert online.read(series) == (head, newest(head))


def test_an_older_publication_at_once_with_a_newer_one_never_wins(online: OnlineStore, series: str) -> None:
    answers = race(8, lambda number: online.publish([(series, number, newest(number))]))
    assert not any(isinstance(answer, Exception) for answer in answers)
    assert online.read(series) == (7, newest(7))


@pytest.mark.parametrize(
    "operation",
    [
        lambda store: store.publish([("a", 0, [1.0])]),
        lambda store: store.push("a", 0, 1.0, KEEP),
        lambda store: store.read("a"),
    ],
    ids=["publish", "push", "read"],
)
def test_a_redis_that_is_not_there_is_said_soon(operation) -> None:
    started = time.monotonic()
    with pytest.raises(OnlineStoreUnavailable, match="mlplatform status"):
        operation(OnlineStore("redis://127.0.0.1:1/0"))
    assert time.monotonic() - started < 10


def test_scripts_that_redis_forgot_are_loaded_again(online: OnlineStore, series: str) -> None:
    online.push(series, 0, 0.0, KEEP)
    online._redis.script_flush()
    assert online.push(series, 1, 0.1, KEEP) == [0.1, 0.0]
    online._redis.script_flush()
    assert online.publish([(series, 2, newest(2))]) == 1
