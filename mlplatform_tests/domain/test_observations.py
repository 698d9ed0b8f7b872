from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mlplatform.domain.families import Families, Family
from mlplatform.domain.observations import LARGEST, Submission, Tail, admit

START = datetime(2020, 1, 1, tzinfo=UTC)
FAMILIES = Families((Family(lags=15),))


def submission(position: int, value: object = 1.0, minute: int | None = None, **fields: Any) -> Submission:
    given = {
        "source": "source",
        "source_position": position,
        "series_id": "a",
        "observation_id": f"id {position}",
        "event_time": START + timedelta(minutes=position if minute is None else minute),
        "value": value,
    }
    return Submission(**{**given, **fields})


def a_year() -> dict[str, Tail]:
    """Twelve values around 100, the last of them at START."""
    return {"a": Tail(12, START, tuple(100.0 + step for step in range(12)))}


def refusal(one: Submission, tails: dict[str, Tail] | None = None, known=()) -> str:
    accepted, refused = admit([one], a_year() if tails is None else tails, set(known), FAMILIES)
    assert accepted == []
    assert [each.submission for each in refused] == [one]
    return refused[0].reason


def test_offsets_are_dense_per_series_and_in_order_of_event_time() -> None:
    submissions = [
        submission(1, 1.0, minute=3),
        submission(2, 2.0, minute=1, series_id="b"),
        submission(3, 3.0, minute=2),
        submission(4, 4.0, minute=5, series_id="b"),
    ]
    accepted, refused = admit(submissions, {}, set(), FAMILIES)
    assert refused == []
    assert [(o.series_id, o.offset, o.value) for o in accepted] == [
        *[("b", 0, 2.0), ("a", 0, 3.0)],
        *[("a", 1, 1.0), ("b", 1, 4.0)],
    ]


def test_offsets_go_on_where_the_log_ends() -> None:
    tails = a_year()
    accepted, _ = admit([submission(1, 101.0), submission(2, 102.0)], tails, set(), FAMILIES)
    assert [o.offset for o in accepted] == [12, 13]
    assert tails["a"] == Tail(14, START + timedelta(minutes=2), (102.0, 101.0, *a_year()["a"].values))


def test_an_observation_is_what_was_submitted() -> None:
    (found,), _ = admit([submission(7, 2)], {}, set(), FAMILIES)
    assert (found.observation_id, found.event_time, found.source) == (
        "id 7",
        START + timedelta(minutes=7),
        "source",
    )
    assert type(found.value) is float


def test_a_tail_keeps_as_many_values_as_the_family_has_lags() -> None:
    tails: dict[str, Tail] = {}
    admit([submission(at, float(at)) for at in range(9)], tails, set(), Families((Family(lags=3),)))
    assert tails["a"].values == (8.0, 7.0, 6.0)


@pytest.mark.parametrize("value", [0, -0.0, 5e-324, 10**15, LARGEST, -LARGEST, Fraction(1, 3)])
def test_any_number_of_sane_size_is_accepted_from_the_start(value: object) -> None:
    accepted, refused = admit([submission(1, value)], {}, set(), FAMILIES)
    assert refused == []
    assert accepted[0].value == float(value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (math.nan, "not finite: nan"),
        (math.inf, "not finite: inf"),
        (-math.inf, "not finite: -inf"),
        (None, "not a number: 'None'"),
        ("12", "not a number: '12'"),
        ("\ud800", "not a number: '\\ud800'"),
        ("x" * 1_000, f"not a number: '{'x' * 40}'"),
        (True, "not a number: 'True'"),
        (1j, "not a number: '1j'"),
        ([1.0], "not a number: '[1.0]'"),
        ({}, "not a number: '{}'"),
        (1.1 * LARGEST, "too large: its size is above 1e+30"),
        (-1.1 * LARGEST, "too large: its size is above 1e+30"),
        (1e300, "too large: its size is above 1e+30"),
        (10**400, "too large: its size is above 1e+30"),
        (-(10**400), "too large: its size is above 1e+30"),
    ],
)
def test_what_is_no_number_is_refused_also_from_the_start(value: object, reason: str) -> None:
    assert refusal(submission(1, value), {}) == reason
    assert refusal(submission(1, value)) == reason


@pytest.mark.parametrize("series_id", ["", None, 5])
def test_what_names_no_series_is_refused(series_id: object) -> None:
    assert refusal(submission(1, 1.0, series_id=series_id)) == "no series_id"


def test_what_has_no_event_time_is_refused() -> None:
    assert refusal(submission(1, 100.0, event_time=None)) == "no event time"


def test_what_the_log_holds_is_refused_as_duplicate() -> None:
    assert (
        refusal(submission(1, 100.0), known={("a", "id 1")}) == "duplicate: observation 'id 1' is in the log"
    )


def test_an_id_is_taken_within_one_series_only() -> None:
    accepted, _ = admit([submission(1)], {}, {("b", "id 1")}, FAMILIES)
    assert len(accepted) == 1


def test_the_second_of_two_with_one_id_in_a_batch_is_refused() -> None:
    first, second = submission(1, 1.0), submission(2, 2.0, observation_id="id 1")
    accepted, refused = admit([second, first], {}, set(), FAMILIES)
    assert [o.value for o in accepted] == [1.0]
    assert refused[0].reason == "duplicate: observation 'id 1' is in the log"


@pytest.mark.parametrize("minute", [0, -1])
def test_what_is_not_after_the_newest_is_refused_as_late(minute: int) -> None:
    assert (
        refusal(submission(1, 100.0, minute=minute)) == f"late: the series is already at {START.isoformat()}"
    )


@pytest.mark.parametrize("value", [100.0 + 500, 100.0 - 500])
def test_what_is_outside_the_band_is_refused_as_absurd(value: float) -> None:
    assert refusal(submission(1, value)) == (
        f"absurd: {value:g} after 100 is outside the band of its family; if it is right, widen absurd_beyond"
    )


REFUSED = [math.nan, None, "text", True, 1e9, 10**400]


@pytest.mark.parametrize("value", REFUSED)
def test_a_refused_submission_leaves_no_trace(value: object) -> None:
    tails, known = a_year(), {("a", "earlier")}
    admit([submission(1, value)], tails, known, FAMILIES)
    assert tails == a_year()
    assert known == {("a", "earlier")}


def test_an_id_that_was_refused_is_free_for_a_correction() -> None:
    submissions = [submission(1, math.nan), submission(2, 100.0, observation_id="id 1")]
    accepted, refused = admit(submissions, a_year(), set(), FAMILIES)
    assert [o.value for o in accepted] == [100.0]
    assert len(refused) == 1


ANY_SUBMISSION = st.builds(
    lambda position, value, minute, series_id, observation_id, source: submission(
        position, value, minute, series_id=series_id, observation_id=observation_id, source=source
    ),
    position=st.integers(1, 30),
    value=st.sampled_from([1.0, 2.0, 3, -1.5, *REFUSED]),
    minute=st.integers(0, 8),
    series_id=st.sampled_from(["a", "b", ""]),
    observation_id=st.sampled_from(["x", "y", "z", "w"]),
    source=st.sampled_from(["one", "two"]),
)
# A source gives a position once.
BATCHES = st.lists(ANY_SUBMISSION, max_size=12, unique_by=lambda s: (s.source, s.source_position))


@given(batch=BATCHES, data=st.data())
def test_in_any_order_one_batch_makes_the_same_observations(batch: list[Submission], data) -> None:
    shuffled = data.draw(st.permutations(batch))
    tails, other_tails = {}, {}
    assert admit(batch, tails, set(), FAMILIES) == admit(shuffled, other_tails, set(), FAMILIES)
    assert tails == other_tails


@given(batch=BATCHES)
def test_every_submission_is_either_an_observation_or_refused(batch: list[Submission]) -> None:
    accepted, refused = admit(batch, {}, set(), FAMILIES)
    assert len(accepted) + len(refused) == len(batch)
    for series_id in "ab":
        mine = [o for o in accepted if o.series_id == series_id]
        times = [o.event_time for o in mine]
        assert [o.offset for o in mine] == list(range(len(mine)))
        assert times == sorted(set(times))
        assert len({o.observation_id for o in mine}) == len(mine)
        assert all(math.isfinite(o.value) for o in mine)


@given(batch=BATCHES)
def test_a_batch_that_is_submitted_again_adds_nothing(batch: list[Submission]) -> None:
    tails: dict[str, Tail] = {}
    known: set[tuple[str, str]] = set()
    admit(batch, tails, known, FAMILIES)
    before = dict(tails)
    accepted, _ = admit(batch, tails, known, FAMILIES)
    assert accepted == []
    assert tails == before


def test_a_submission_is_not_changed() -> None:
    one = submission(1, 5)
    admit([one], {}, set(), FAMILIES)
    assert one == replace(one)
    assert one.value == 5


def test_a_date_that_is_still_to_come_is_refused_and_makes_no_other_late():
    until, tails = submission(5, 1.0).event_time, {}
    accepted, refused = admit([submission(1, 1.0), submission(9, 2.0)], tails, set(), FAMILIES, until)
    assert [observation.value for observation in accepted] == [1.0]
    assert [refusal.reason.split(":")[0] for refusal in refused] == ["early"]
    accepted, _ = admit([submission(2, 3.0)], tails, set(), FAMILIES, until)
    assert len(accepted) == 1
