"""The checker of histories finds each broken promise, and nothing in what is right."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from mlplatform.domain.recipes import load_recipes
from mlplatform_tests.services import histories
from mlplatform_tests.services.histories import Attempt, Observation, check, predictions, unknown

REPLAYS = {"/add": histories.features}
History = list[Attempt]


def observation(at: int) -> Observation:
    return Observation("/add", {"series_id": "s", "observation_id": f"n{at}", "value": 10.0 + at})


def right() -> History:
    """Five observations, one after the other."""
    observations = [observation(at) for at in range(5)]
    answers = histories.features(observations)
    return [
        Attempt(each, at, at + 0.5, 200, answer)
        for at, (each, answer) in enumerate(zip(observations, answers, strict=True))
    ]


def judged(history: History, count: int = 5) -> None:
    check(history, {("/add", "s"): count}, REPLAYS)


def test_what_is_right_passes() -> None:
    history = right()
    judged(history)
    # Asked again, refused, unfit, given up and asked again, and at the same time as another.
    history += [
        replace(history[1], began=7, ended=8),
        Attempt(observation(9), 7, 8, 503),
        Attempt(observation(10), 7, 8, 422),
        Attempt(history[2].observation, 1.9, 3),
        replace(history[0], began=0, ended=20),
    ]
    judged(history)
    taken = check(history, {("/add", "s"): 5}, REPLAYS)["/add", "s"]
    assert [each.observation.body["observation_id"] for each in taken] == [f"n{at}" for at in range(5)]


def other_answer(history: History) -> None:
    history.append(replace(history[1], answer={**history[1].answer, "offset": 5}))


def lost(history: History) -> None:
    del history[2]


def lost_at_the_end(history: History) -> None:
    del history[4]


def doubled(history: History) -> None:
    history.append(replace(history[4], observation=observation(5)))


def refused_and_there(history: History) -> None:
    history[3] = replace(history[3], status=503, answer=None)


def unfit_and_taken(history: History) -> None:
    history.append(replace(history[1], status=422, answer=None))


def failed(history: History) -> None:
    history.append(replace(history[1], status=500, answer=None))


def out_of_order(history: History) -> None:
    history[3] = replace(history[3], began=0, ended=0.1)


def made_of_other_observations(history: History) -> None:
    features = {**history[3].answer["features"], "in_2": 0.0}
    history[3] = replace(history[3], answer={**history[3].answer, "features": features})


def nobody_knows(history: History) -> None:
    history.append(Attempt(observation(5), 8, 9))


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (other_answer, "two answers"),
        (lost, "offsets of s"),
        (lost_at_the_end, "has not what was answered"),
        (doubled, "offsets of s"),
        (refused_and_there, "offsets of s"),
        (unfit_and_taken, "found unfit"),
        (failed, "was answered .500."),
        (out_of_order, "came before what was answered"),
        (made_of_other_observations, "s at /add"),
        (nobody_knows, "sent again first"),
    ],
)
def test_a_broken_promise_is_found(broken: Callable[[History], None], message: str) -> None:
    history = right()
    broken(history)
    with pytest.raises(AssertionError, match=message):
        judged(history)


def test_more_than_was_answered_is_found() -> None:
    with pytest.raises(AssertionError, match="has not what was answered"):
        judged(right(), count=6)


def test_a_series_that_is_gone_is_found() -> None:
    with pytest.raises(AssertionError, match="has not what was answered"):
        check(right(), {}, REPLAYS)


def test_unknown_is_what_was_never_answered() -> None:
    history = right()
    history += [
        Attempt(history[0].observation, 8, 9),
        Attempt(observation(5), 8, 9),
        Attempt(observation(6), 8, 9, 503),
        Attempt(observation(7), 8, 9),
        Attempt(observation(7), 8, 9, 503),
    ]
    assert unknown(history) == [observation(5), observation(7)]


def test_predictions_are_of_a_model_that_met_no_fault() -> None:
    observations = [
        Observation(
            "", {"series_id": "s", "observation_id": str(at), "features": {"in_1": at}, "target": at + 1}
        )
        for at in range(3)
    ]
    answers = predictions(load_recipes()["naive"])(observations)
    assert answers == [
        {"prediction": at, "series_id": "s", "observation_id": str(at), "offset": at} for at in range(3)
    ]
