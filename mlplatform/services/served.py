"""One model as the routes use it: what it says, how well, and to whom."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np

from mlplatform.domain.metrics import WINDOWS
from mlplatform.domain.model import Model
from mlplatform.domain.observations import LARGEST
from mlplatform.domain.recipe import Recipe
from mlplatform.io import declaration
from mlplatform.io.journal import Entry
from mlplatform.io.results import FORECAST_STEPS
from mlplatform.io.stores import Stores
from mlplatform.services.learner import Learner
from mlplatform.services.model_requests import Features, lags_of, unfit_id
from mlplatform.services.pipeline_models import PipelineModels
from mlplatform.services.refusals import Refused

# Events that wait for one client of the stream.
LONGEST_STREAM = 1_000
KEEP_ALIVE_SECONDS = 15


class Served:
    """One model as the routes use it: the learner, the pipeline's models, and who listens."""

    def __init__(self, name: str, recipe: Recipe, stores: Stores) -> None:
        families = declaration.families()
        self.name = name
        self.recipe = recipe
        self.families = families
        self.pipeline = PipelineModels(recipe, families, stores)
        self.stream = Stream()
        self.learner = Learner(
            name, recipe, families, stores, claimed=self.pipeline.claims, told=self.stream.tell
        )
        self._forecasts: dict[str, tuple[Model, int, list[float]]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await self.learner.start()
        # Before the first observation of a new series waits for it.
        await self.pipeline.look()
        try:
            yield
        finally:
            self.stream.end()
            await self.learner.stop()
            await self.pipeline.close()

    async def model(self, series_id: str) -> Model:
        """The model of a series, whoever owns it; one that has learned nothing for a series of nobody."""
        state = await self.learner.recovered()
        if model := state.model(series_id):
            return model
        await self.pipeline.look()
        if model := self.pipeline.model(series_id):
            return model
        if self.pipeline.owns(series_id):
            raise Refused(
                503,
                f"the pipeline's model of series {series_id!r} was made by another version: its next run"
                " makes it again",
            )
        return Model(self.recipe, self.families.of(series_id))

    def series(self) -> dict[str, tuple[Model, Entry | None]]:
        """Every series that was learned, with its last entry where the service owns it."""
        state = self.learner.state
        own: dict[str, tuple[Model, Entry | None]] = {}
        if state is not None:
            own = {name: (model, entry) for name, entry in state.last.items() if (model := state.model(name))}
        return own | {name: (model, None) for name, model in self.pipeline.models.items() if name not in own}

    def forecast(self, series_id: str, model: Model) -> list[float]:
        """The next values of a series, made once for each of its observations."""
        made = self._forecasts.get(series_id)
        # Made again after a commit that failed, a model may be as far and have learned something else.
        if made is None or made[0] is not model or made[1] != model.next_offset:
            with np.errstate(all="ignore"):
                made = model, model.next_offset, model.forecast(FORECAST_STEPS)
            self._forecasts[series_id] = made
        return made[2]


class Stream:
    """Tells what was learned to whoever listens; who is slow loses events, and hears how many."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._lost: dict[asyncio.Queue[str | None], int] = {}
        self._ended = False

    def tell(self, entry: Entry) -> None:
        if not self._listeners:
            return
        data = {
            **entry.answer,
            "actual": entry.value,
            "event_time": entry.event_time.isoformat(),
        }
        event = f"event: prediction\nid: {entry.position}\ndata: {json.dumps(data)}\n\n"
        for queue in self._listeners:
            if queue.full():
                self._lost[queue] = self._lost.get(queue, 0) + 1
            else:
                queue.put_nowait(event)

    def end(self) -> None:
        """Lets everybody go, also who comes later: a server that is told to end goes on for a moment."""
        self._ended = True
        for queue in self._listeners:
            while queue.full():
                queue.get_nowait()
            queue.put_nowait(None)

    async def events(self) -> AsyncIterator[str]:
        """Server-sent events, until the service ends."""
        queue: asyncio.Queue[str | None] = asyncio.Queue(LONGEST_STREAM)
        self._listeners.add(queue)
        try:
            yield "retry: 1000\n\n"
            while not (self._ended and queue.empty()):
                try:
                    event = await asyncio.wait_for(queue.get(), KEEP_ALIVE_SECONDS)
                except TimeoutError:
                    yield ": nothing new\n\n"
                    continue
                if event is None:
                    return
                yield event
                if lost := self._lost.pop(queue, 0):
                    yield f"event: lost\ndata: {json.dumps({'count': lost})}\n\n"
        finally:
            self._listeners.discard(queue)
            self._lost.pop(queue, None)


async def values_ahead(served: Served, asked: Features, steps: int) -> list[float]:
    """The next values of a series.

    Raises:
        Refused: the features are not as they must be, or lead to no number.
    """
    if reason := unfit_id("series_id", asked.series_id):
        raise Refused(422, reason)
    given = None
    if asked.features is not None:
        try:
            lags = lags_of(asked.features)
        except ValueError as error:
            raise Refused(422, str(error)) from None
        if not all(abs(lag) <= LARGEST for lag in lags):
            raise Refused(422, f"features must be finite numbers of a size not above {LARGEST:g}")
        given = np.array(lags, dtype=float)
    model = await served.model(asked.series_id)
    with np.errstate(all="ignore"):
        values = model.forecast(steps, given)
    if not all(map(math.isfinite, values)):
        raise Refused(422, "from these features the model comes to no number")
    return values


def accuracy(
    served: Served, series_id: str, model: Model, entry: Entry | None, history: bool
) -> dict[str, Any]:
    """What /model_metrics tells of a series."""
    summary = model.metrics.summary()
    names = [f"{metric}_{window}" for window in WINDOWS for metric in ("mae", "mse", "rmse", "mape")]
    actual, prediction = last_said(model, entry)
    told = {
        "count": model.next_offset,
        **{name: _number(summary[name], 4 if name.startswith("mape") else 6) for name in names},
        "last_prediction": prediction,
        "last_actual": actual,
        "last_error": None if actual is None or prediction is None else abs(actual - prediction),
        "forecast": [_number(value) for value in served.forecast(series_id, model)],
    }
    if history:
        told["history"] = [{"actual": actual, "prediction": said} for actual, said in model.metrics.last]
    return told


def last_said(model: Model, entry: Entry | None) -> tuple[float | None, float | None]:
    """The last value, and what the model said of it."""
    if entry is not None:
        return entry.value, entry.answer["prediction"]
    return model.metrics.last[-1] if model.metrics.last else (None, None)


def _number(value: float, decimals: int = 6) -> float | None:
    """Rounded; None where there is no number."""
    return round(value, decimals) if math.isfinite(value) else None
