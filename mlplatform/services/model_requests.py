"""What clients send to a model service, what they get, and what the learner is told of it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Header, Query
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from mlplatform.domain.observations import LONGEST_ID
from mlplatform.services.learner import Call, Learner
from mlplatform.services.refusals import Refused, documented

Responses = dict[int | str, dict[str, Any]]

DEFAULT_SERIES = "default"
# Keys of /model_metrics that are no series.
RESERVED = {"message", "model_info"}
MOST_STEPS = 100
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
WRITE, READ = "models:write", "models:read"
INVALID: Responses = {422: documented("Not fit to be learned; no model has changed")}
OWNED: Responses = {409: documented("Somebody else owns the series")}
BROKEN: Responses = {400: documented("The body cannot be read")}
# What several routes take.
Key = Annotated[str | None, Header(description="The observation_id of a body without")]
Steps = Annotated[int, Query(ge=1, le=MOST_STEPS)]
History = Annotated[bool, Query(description="Also the last actual values and predictions")]


class Features(BaseModel):
    """Lag features `in_1` (newest) to `in_k`, zero-filled."""

    model_config = ConfigDict(json_schema_extra={"examples": [{"features": {"in_1": 102.0, "in_2": 101.5}}]})

    features: dict[str, float] | None = Field(
        default=None, description="`in_1` (newest) to `in_k`; left out, they are the series' own."
    )
    series_id: str = DEFAULT_SERIES


class Observed(BaseModel):
    """One observation, with the lag features before it."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"features": {"in_1": 102.0, "in_2": 101.5}, "target": 103.0}]}
    )

    features: dict[str, float] = Field(description="`in_1` (newest) to `in_k`, zero-filled")
    target: float
    series_id: str = DEFAULT_SERIES
    observation_id: str | None = Field(default=None, description="Given again, it gets its first answer")
    event_time: AwareDatetime | None = Field(default=None, description="When it was observed; now")


class Prediction(BaseModel):
    """What the model says."""

    prediction: float


class Learned(Prediction):
    """What the model said of an observation before it learned it."""

    series_id: str
    observation_id: str
    offset: int = Field(description="Position in the series, from 0")


class Step(BaseModel):
    """One value ahead."""

    step: int
    value: float


class Forecast(BaseModel):
    """The next values, each made of the ones before it."""

    forecast: list[Step]


def numbered(values: Sequence[float]) -> list[dict[str, float]]:
    """A forecast as `Forecast` has it."""
    return [{"step": step, "value": round(value, 6)} for step, value in enumerate(values, 1)]


def to_call(learner: Learner, observed: Observed, key: str | None) -> Call:
    """What the request tells the learner.

    Args:
        learner: its quarantine gets what is refused.
        key: names the observation where the body does not.

    Raises:
        Refused: features, ids or time are not as they must be.
    """
    observation_id = key if observed.observation_id is None else observed.observation_id
    call = Call(observed.series_id, None, observed.target, observation_id, observed.event_time)
    if reason := unfit_id("series_id", observed.series_id) or (
        observation_id is not None and unfit_id("observation_id", observation_id)
    ):
        # Not even the quarantine has a place for what no id can be.
        raise Refused(422, reason)
    time = observed.event_time
    if time is not None and not EARLIEST <= time <= LATEST:
        raise Refused(422, f"event_time must be between {EARLIEST.year} and {LATEST.year}")
    try:
        lags = lags_of(observed.features)
    except ValueError as error:
        raise learner.refuse(str(error), call, observed.features) from None
    at = None if time is None else time.astimezone(UTC)
    return Call(observed.series_id, lags, observed.target, observation_id, at)


def lags_of(features: dict[str, float]) -> tuple[float, ...]:
    """The values of `in_1 … in_k`, newest first.

    Raises:
        ValueError: there are others, or some are missing.
    """
    try:
        return tuple([features[f"in_{lag}"] for lag in range(1, len(features) + 1)])
    except KeyError as missing:
        strange = [name for name in features if not re.fullmatch(r"in_[1-9]\d*", name)]
        wrong = f"there are others ({', '.join(strange)[:100]!r})" if strange else f"{missing} is missing"
        raise ValueError(f"features must be in_1 to in_k without a gap: {wrong}") from None


def unfit_id(what: str, given: str) -> str | None:
    if not 0 < len(given) <= LONGEST_ID or not given.isprintable():
        return f"{what} must have 1 to {LONGEST_ID} characters, and only such as can be printed"
    if what == "series_id" and given in RESERVED:
        return f"no series can be called {given!r}, which is a key of /model_metrics"
    return None
