from __future__ import annotations

import time

import pytest

from mlplatform.io.leases import Lease, LeaseHeld, Leases
from mlplatform.io.object_store import ObjectStore
from mlplatform_tests.io.racing import race

SHORT = 0.6


@pytest.fixture
def leases(store: ObjectStore) -> Leases:
    return Leases(store, SHORT)


def die_holding(store: ObjectStore, owner: str, seconds: float = SHORT) -> Lease:
    """What is left of an owner that took the shard and renews it no more."""
    with Leases(store, seconds).hold(0, owner) as lease:
        return lease


def test_nobody_owns_a_shard_at_first(leases: Leases) -> None:
    assert leases.current(0) is None


def test_the_owner_is_known_while_it_holds_the_shard(leases: Leases) -> None:
    with leases.hold(0, "run 1") as lease:
        assert lease.live
        assert (leases.current(0).owner, leases.current(0).token) == ("run 1", 1)
        assert leases.current(1) is None


def test_the_steps_of_one_owner_share_its_lease(leases: Leases) -> None:
    with leases.hold(0, "run 1") as first, leases.hold(0, "run 1") as second:
        assert first.token == second.token


def test_a_lease_is_renewed_for_as_long_as_it_is_held(leases: Leases) -> None:
    with leases.hold(0, "run 1"):
        time.sleep(2 * SHORT)
        assert leases.current(0).live
        assert leases.current(0).token == 1


def test_who_comes_while_another_renews_is_refused_and_told_who_it_is(store: ObjectStore) -> None:
    with (
        Leases(store, 30.0).hold(0, "run 1"),
        pytest.raises(LeaseHeld, match=r"shard 0 belongs to run 1 for another \d+ s"),
        Leases(store, 0.1).hold(0, "run 2"),
    ):
        pass


def test_a_dead_owner_is_replaced_when_its_lease_expires_and_not_before(store: ObjectStore) -> None:
    dead = die_holding(store, "run 1")
    with Leases(store, SHORT).hold(0, "run 2") as lease:
        assert time.time() >= dead.expires_at
        assert (lease.owner, lease.token) == ("run 2", 2)


def test_the_token_grows_with_each_new_owner(store: ObjectStore) -> None:
    leases, tokens = Leases(store, SHORT), []
    for owner in ("run 1", "run 2", "run 2", "run 1"):
        with leases.hold(0, owner) as lease:
            tokens.append(lease.token)
            leases.release(0, owner)
    assert tokens == [1, 2, 2, 3]


def test_a_released_shard_is_free_at_once(store: ObjectStore) -> None:
    leases = Leases(store, 30.0)
    with leases.hold(0, "run 1"):
        leases.release(0, "run 1")
    assert not leases.current(0).live
    with leases.hold(0, "run 2") as lease:
        assert lease.token == 2


def test_a_released_lease_is_not_renewed(leases: Leases) -> None:
    with leases.hold(0, "run 1"):
        leases.release(0, "run 1")
        time.sleep(SHORT)
        assert not leases.current(0).live


def test_nobody_can_release_what_another_owns(leases: Leases) -> None:
    with leases.hold(0, "run 1"):
        leases.release(0, "run 2")
        assert leases.current(0).owner == "run 1"
        assert leases.current(0).live


def test_an_owner_that_lost_its_shard_does_not_take_it_again(store: ObjectStore) -> None:
    with Leases(store, SHORT).hold(0, "stopped for a while") as lost:
        # As if it had been stopped until another took the shard, and that one had died.
        Leases(store)._write(0, Lease("run 2", lost.token + 1, 0.1), store.get("leases/0").etag)
        time.sleep(SHORT)
        assert store.get("leases/0").content == b'{"owner": "run 2", "token": 2, "expires_at": 0.1}'


def test_of_two_that_take_a_shard_at_once_one_wins(store: ObjectStore) -> None:
    def attempt(number: int) -> str:
        with Leases(store, 1.5).hold(0, f"run {number}") as lease:
            time.sleep(2.5)
            return lease.owner

    answers = race(2, attempt)
    winners = [answer for answer in answers if isinstance(answer, str)]
    assert len(winners) == 1
    (loser,) = [answer for answer in answers if isinstance(answer, LeaseHeld)]
    assert winners[0] in str(loser)
