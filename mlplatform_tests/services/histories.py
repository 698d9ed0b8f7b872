"""What clients were told, and whether a service that keeps its promises can have told it.

Clients write down each attempt. `check` judges these records alone: it knows neither the service's tables nor
what befell the service or the network.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mlplatform.domain.families import DEFAULT_FAMILY
from mlplatform.domain.model import Model
from mlplatform.domain.recipe import Recipe

OK, UNFIT, NOT_NOW = 200, 422, 503


@dataclass(frozen=True)
class Observation:
    """One observation, and the route (`/add`) that it is posted to, each time with the same body."""

    route: str
    body: Mapping[str, Any] = field(hash=False)

    @property
    def series_id(self) -> str:
        return self.body["series_id"]

    @property
    def key(self) -> tuple[str, str, str]:
        return self.route, self.series_id, self.body["observation_id"]


@dataclass(frozen=True)
class Attempt:
    """One request. Without a `status`, no answer came: it may have had its effect, or not."""

    observation: Observation
    began: float
    ended: float
    status: int | None = None
    answer: Any = None


@dataclass(frozen=True)
class Taken:
    """An observation that was answered, and what was answered at first."""

    observation: Observation
    began: float
    answered: float
    answer: Mapping[str, Any]

    @property
    def offset(self) -> int:
        return self.answer["offset"]


# The answers to the observations of one series, in the order in which they were taken.
Replay = Callable[[Sequence[Observation]], list[dict[str, Any]]]


def unknown(attempts: Iterable[Attempt]) -> list[Observation]:
    """The observations of which nobody knows whether they were taken."""
    by_key = _by_key(attempts)
    return [
        each[0].observation
        for each in by_key.values()
        if any(attempt.status is None for attempt in each)
        and not any(attempt.status in (OK, UNFIT) for attempt in each)
    ]


def check(
    attempts: Iterable[Attempt], counts: Mapping[tuple[str, str], int], replays: Mapping[str, Replay]
) -> dict[tuple[str, str], list[Taken]]:
    """Holds the promises against what clients saw.

    - There is no answer but 200, 422 (not fit, whoever asks) and 503 (not now, without effect).
    - Every attempt at an observation gets the same answer (G1, G4).
    - The offsets of what was taken are dense, and reach as far as the service says in the end: nothing is
      lost (G4), and nothing is there that was refused, or that nobody sent.
    - What was answered before another was first sent comes before it.
    - Each answer is what follows from exactly the observations before it (G2).

    Args:
        attempts: of all clients, until there is none that is unknown.
        counts: how many observations each series has in the end, by route and series_id.
        replays: by route.

    Returns:
        What was taken, by route and series_id, in order of the offsets.

    Raises:
        AssertionError: a promise is broken.
    """
    attempts = list(attempts)
    assert not unknown(attempts), "unknown observations have to be sent again first"
    taken: dict[tuple[str, str], list[Taken]] = {each: [] for each in counts}
    for (route, series_id, name), tried in _by_key(attempts).items():
        strange = {attempt.status for attempt in tried} - {OK, UNFIT, NOT_NOW, None}
        assert not strange, f"{name} was answered {strange}"
        answered = [attempt for attempt in tried if attempt.status == OK]
        if not answered:
            continue
        assert all(attempt.status != UNFIT for attempt in tried), (
            f"{name} was taken, and found unfit: {tried}"
        )
        first = min(answered, key=lambda attempt: attempt.ended)
        for attempt in answered:
            assert attempt.answer == first.answer, f"{name} got two answers"
        began = min(attempt.began for attempt in tried)
        taken.setdefault((route, series_id), []).append(
            Taken(first.observation, began, first.ended, first.answer)
        )
    for (route, series_id), each in taken.items():
        each.sort(key=lambda taken: taken.offset)
        offsets = [taken.offset for taken in each]
        assert offsets == list(range(len(each))), f"offsets of {series_id} at {route}: {offsets}"
        assert counts.get((route, series_id)) == len(each), (
            f"{series_id} at {route} has not what was answered"
        )
        _check_order(each)
        expected = replays[route]([taken.observation for taken in each])
        for taken_one, answer in zip(each, expected, strict=True):
            assert taken_one.answer == answer, f"{series_id} at {route}"
    return taken


def _by_key(attempts: Iterable[Attempt]) -> dict[tuple[str, str, str], list[Attempt]]:
    by_key: dict[tuple[str, str, str], list[Attempt]] = {}
    for attempt in attempts:
        by_key.setdefault(attempt.observation.key, []).append(attempt)
    return by_key


def _check_order(taken: Sequence[Taken]) -> None:
    answered = sorted(taken, key=lambda each: each.answered)
    newest, done = -1, 0
    for each in sorted(taken, key=lambda each: each.began):
        while answered[done].answered < each.began:
            newest, done = max(newest, answered[done].offset), done + 1
        assert each.offset > newest, f"{each.observation.key} came before what was answered before it"


def features(observations: Sequence[Observation], lags: int = DEFAULT_FAMILY.lags) -> list[dict[str, Any]]:
    """The answers of a feature service."""
    values = [each.body["value"] for each in observations]
    answers = []
    for at, each in enumerate(observations):
        earlier = values[max(at - lags, 0) : at][::-1]
        answers.append(
            {
                "series_id": each.series_id,
                "features": {
                    f"in_{lag}": value for lag, value in enumerate([*earlier, *[0.0] * lags][:lags], 1)
                },
                "target": values[at],
                "available_lags": len(earlier),
                "observation_id": each.body["observation_id"],
                "offset": at,
            }
        )
    return answers


def predictions(recipe: Recipe) -> Replay:
    """The answers of a model that has never met a fault."""

    def replay(observations: Sequence[Observation]) -> list[dict[str, Any]]:
        model = Model(recipe, DEFAULT_FAMILY)
        return [_learned(model, at, each) for at, each in enumerate(observations)]

    return replay


def _learned(model: Model, offset: int, observation: Observation) -> dict[str, Any]:
    body = observation.body
    given = [body["features"][f"in_{lag}"] for lag in range(1, len(body["features"]) + 1)]
    lags, available = model.shown(np.array(given, dtype=float))
    with np.errstate(all="ignore"):
        (prediction,) = model.fold(
            np.array([offset]), lags[None, :], np.array([available]), np.array([body["target"]])
        )
    return {
        "prediction": prediction,
        "series_id": observation.series_id,
        "observation_id": body["observation_id"],
        "offset": offset,
    }
