from __future__ import annotations

import math
import pickle

import pytest

from mlplatform.domain.champion import HALF_LIFE, HYSTERESIS, KEPT_CHANGES, WARM_UP, Contest

CANDIDATES = {"a", "b"}
ACTUAL = 100.0


def contend(contest: Contest, count: int, candidates: set[str] = CANDIDATES, **errors: float) -> Contest:
    """Lets each model err by so much, `count` times."""
    for _ in range(count):
        offset = max(contest.counts.values(), default=0)
        contest.learn(offset, ACTUAL, {name: ACTUAL + error for name, error in errors.items()}, candidates)
    return contest


def test_there_is_no_champion_before_the_warm_up() -> None:
    contest = contend(Contest(), WARM_UP - 1, a=1.0, b=2.0)
    assert contest.champion is None
    assert contend(contest, 1, a=1.0, b=2.0).champion == "a"
    assert contest.since_offset == WARM_UP


def test_without_a_champion_the_first_candidate_by_name_serves() -> None:
    assert Contest().predict({"b": 2.0, "a": 1.0, "A baseline": 0.0}, CANDIDATES) == ("a", 1.0)


def test_the_champion_serves() -> None:
    contest = contend(Contest(), WARM_UP, a=2.0, b=1.0)
    assert contest.predict({"a": 1.0, "b": 2.0}, CANDIDATES) == ("b", 2.0)


def test_a_baseline_is_never_champion() -> None:
    assert contend(Contest(), 100, naive=0.0, a=5.0, b=6.0).champion == "a"


@pytest.mark.parametrize("ahead", [0.0, 0.5 * HYSTERESIS, 0.9 * HYSTERESIS])
def test_a_challenger_that_is_ahead_by_little_does_not_win(ahead: float) -> None:
    contest = contend(Contest(), WARM_UP, a=1.0, b=2.0)
    assert contend(contest, 1_000, a=1.0, b=1.0 - ahead).champion == "a"


def test_a_challenger_that_is_ahead_by_much_wins_and_is_champion_from_then_on() -> None:
    contest = contend(Contest(), WARM_UP, a=1.0, b=2.0)
    contend(contest, 1_000, a=1.0, b=1.0 - 1.2 * HYSTERESIS)
    assert contest.champion == "b"
    assert WARM_UP < contest.since_offset < WARM_UP + 1_000


def test_each_change_is_remembered_with_the_errors_at_that_moment() -> None:
    contest = contend(Contest(), WARM_UP, a=1.0, b=2.0)
    contend(contest, 1_000, a=3.0, b=0.0)
    first, second = contest.changes
    assert (first.offset, first.champion, first.previous) == (WARM_UP, "a", None)
    assert (first.error, first.previous_error) == (1.0, None)
    assert (second.offset, second.champion, second.previous) == (contest.since_offset, "b", "a")
    assert second.previous_error is not None
    assert second.error < (1 - HYSTERESIS) * second.previous_error


def test_not_more_changes_are_remembered_than_some() -> None:
    contest = Contest()
    for turn in range(KEPT_CHANGES + 5):
        contend(contest, 1_000, a=float(turn % 2), b=float(1 - turn % 2))
    assert len(contest.changes) == KEPT_CHANGES
    assert contest.changes[-1].champion == contest.champion
    offsets = [change.offset for change in contest.changes]
    assert offsets == sorted(set(offsets))


def test_a_newcomer_must_warm_up_before_it_can_win() -> None:
    contest = contend(Contest(), WARM_UP, a=1.0)
    assert contend(contest, WARM_UP - 1, a=1.0, b=0.0).champion == "a"
    assert contend(contest, 1, a=1.0, b=0.0).champion == "b"


def test_an_error_counts_half_after_a_half_life() -> None:
    contest = contend(Contest(), 500, a=1.0)
    contend(contest, HALF_LIFE, a=0.0)
    assert contest.errors["a"] == pytest.approx(0.5, rel=1e-9)


def test_at_first_the_rolling_error_is_the_plain_mean() -> None:
    contest = Contest()
    for error in (4.0, 1.0, 1.0):
        contend(contest, 1, a=error)
    assert contest.errors["a"] == pytest.approx(2.0)


def test_a_champion_that_is_missing_is_replaced_for_the_moment_only() -> None:
    contest = contend(Contest(), WARM_UP, a=1.0, b=2.0)
    assert contest.predict({"b": 2.0, "naive": 0.0}, CANDIDATES) == ("b", 2.0)
    assert contend(contest, 5, b=2.0).champion == "a"
    assert contest.counts == {"a": WARM_UP, "b": WARM_UP + 5}


def test_where_no_candidate_says_anything_a_baseline_serves() -> None:
    contest = contend(Contest(), WARM_UP, a=1.0)
    assert contest.predict({"naive": 3.0}, CANDIDATES) == ("naive", 3.0)
    assert contend(contest, 1, naive=1.0).champion == "a"


def test_a_champion_loses_to_the_baseline_with_the_lowest_error() -> None:
    contest = contend(Contest(), WARM_UP, a=3.0, b=4.0, naive=1.0, airline=2.0, worse=5.0)
    assert contest.loses_to({"naive", "airline", "worse"}) == "naive"
    assert contest.loses_to({"airline", "worse"}) == "airline"
    assert contest.loses_to({"worse", "never ran"}) is None


def test_nobody_loses_before_there_is_a_champion() -> None:
    assert contend(Contest(), WARM_UP - 1, a=3.0, naive=1.0).loses_to({"naive"}) is None


def test_a_tie_with_a_baseline_is_no_loss() -> None:
    assert contend(Contest(), WARM_UP, a=1.0, naive=1.0).loses_to({"naive"}) is None


def test_its_metrics_are_those_of_who_served_without_the_first_observation() -> None:
    contest = contend(Contest(), WARM_UP, a=1.0, b=3.0)
    contend(contest, WARM_UP, a=1.0, b=3.0)
    summary = contest.metrics.summary()
    assert summary["count"] == 2 * WARM_UP - 1
    assert summary["mae"] == pytest.approx(1.0)


def test_before_the_first_observation_there_are_no_metrics() -> None:
    assert math.isnan(Contest().metrics.summary()["mae"])


def test_a_loaded_contest_goes_on_as_if_it_had_not_been_stored() -> None:
    whole = contend(contend(Contest(), WARM_UP, a=1.0, b=2.0), 100, a=1.0, b=0.5)
    loaded = pickle.loads(pickle.dumps(contend(Contest(), WARM_UP, a=1.0, b=2.0)))  # noqa: S301
    contend(loaded, 100, a=1.0, b=0.5)
    assert (loaded.champion, loaded.since_offset, loaded.errors) == (
        whole.champion,
        whole.since_offset,
        whole.errors,
    )
