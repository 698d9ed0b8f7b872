"""The model service: predicts, learns and tells how well, for clients of the seed and for newer ones."""

from __future__ import annotations

import asyncio
import json
import math
import re
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from itertools import pairwise
from typing import Annotated, Any, cast

import numpy as np
from fastapi import APIRouter, FastAPI, Header, Query, Request
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from mlplatform.domain.metrics import WINDOWS
from mlplatform.domain.model import Model
from mlplatform.domain.observations import LARGEST
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform.io import declaration
from mlplatform.io.journal import Entry
from mlplatform.io.results import FORECAST_STEPS
from mlplatform.io.stores import Stores
from mlplatform.services.app import create_app
from mlplatform.services.direct import DirectRoute
from mlplatform.services.learner import Call, Learner
from mlplatform.services.pipeline_models import PipelineModels
from mlplatform.services.refusals import DETAIL, Refused
from mlplatform.services.security import scope
from mlplatform.settings import ConfigurationError, Settings

# The seed's names of models, and our recipes.
SEED_NAMES = {
    "linear_regression": "linear",
    "bagging_regressor": "bagging",
    "knn_regressor": "knn",
    "amf_regressor": "amf",
    "ridge_regression": "ridge",
}
DEFAULT_NAME = "linear_regression"
DEFAULT_SERIES = "default"
# Keys of /model_metrics that are no series.
RESERVED = {"message", "model_info"}
LONGEST_ID = 200
MOST_STEPS = 100
EARLIEST, LATEST = datetime(1900, 1, 1, tzinfo=UTC), datetime(2200, 1, 1, tzinfo=UTC)
# Events that wait for one client of the stream.
LONGEST_STREAM = 1_000
KEEP_ALIVE_SECONDS = 15
OTHER = "other"
WRITE, READ = "models:write", "models:read"


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
            name, recipe, families, stores, claimed=self.pipeline.owns, told=self.stream.tell
        )
        self._forecasts: dict[str, tuple[int, list[float]]] = {}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        await self.learner.start()
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
        if made is None or made[0] != model.next_offset:
            with np.errstate(all="ignore"):
                made = model.next_offset, model.forecast(FORECAST_STEPS)
            self._forecasts[series_id] = made
        return made[1]


class Stream:
    """Tells what was learned to whoever listens; who is slow loses events, and hears how many."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[str | None]] = set()
        self._lost: dict[asyncio.Queue[str | None], int] = {}

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
        """Lets everybody go."""
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
            while True:
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


def application(settings: Settings, names: Sequence[str] = ()) -> FastAPI:
    """The service of one model at the root, or of several below /models/{name}.

    Args:
        names: of models, the seed's or our recipes'; else MODEL_NAME, else the seed's default.

    Raises:
        ConfigurationError: there is no model of such a name.
    """
    # It is made of what is here.
    from mlplatform.services import champion

    recipes = _recipes(names or (settings.model_name or DEFAULT_NAME,))
    single = len(recipes) == 1
    challenger = champion.challenger(settings, recipes)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        stores = Stores(settings)
        async with AsyncExitStack() as opened:
            served = {name: Served(name, recipe, stores) for name, recipe in recipes.items()}
            for each in served.values():
                await opened.enter_async_context(each.open())
            collectors: list[Collector] = [ModelCollector(list(served.values()), settings)]
            if not single:
                app.state.champion = champion.Champion(served, challenger, settings)
                await opened.enter_async_context(app.state.champion.open())
                collectors.append(champion.ChampionCollector(app.state.champion, settings))
            for collector in collectors:
                app.state.registry.register(collector)
                opened.callback(app.state.registry.unregister, collector)
            app.state.served = served
            yield

    def not_ready(app: FastAPI) -> str | None:
        return "; ".join(filter(None, (each.learner.not_ready for each in app.state.served.values()))) or None

    app = create_app(
        f"mlplatform models: {', '.join(recipes)}",
        DESCRIPTION,
        settings,
        lifespan,
        not_ready,
    )

    def end() -> None:
        for each in app.state.served.values():
            each.stream.end()

    # A stream has no end of its own, and would keep the server from ending.
    app.state.end_streams = end
    app.state.served = {}
    for name, recipe in recipes.items():
        # Below our own name of the model too, for whoever knows that one.
        prefixes = [""] if single else dict.fromkeys((f"/models/{name}", f"/models/{recipe.name}"))
        for at, prefix in enumerate(prefixes):
            app.include_router(_routes(name, prefix), tags=[name], include_in_schema=at == 0)
            for route in _direct_routes(prefix, lambda name=name: app.state.served[name]):
                app.state.direct[route.path] = route
    if not single:
        app.include_router(champion.router, tags=["champion"])
    app.include_router(_common_routes(recipes, health=not single))
    return app


DESCRIPTION = """Models that predict an observation, then learn from it.

What is answered is on the disk. A call with an `observation_id`, or an `Idempotency-Key`, may be made again:
it gets its first answer, and nothing is learned twice. Unlike the services that this one replaces: the first
prediction is a number for every model, values that would spoil a model are refused (422) and leave it as it
was, every series has its own model and metrics, and a restart forgets nothing.
"""
REFUSED = {"content": {"application/json": {"schema": DETAIL}}}
INVALID = {422: {"description": "Not fit to be learned; no model has changed", **REFUSED}}
OWNED = {409: {"description": "Somebody else owns the series", **REFUSED}}
BROKEN = {400: {"description": "The body cannot be read", **REFUSED}}


def _recipes(names: Sequence[str]) -> dict[str, Recipe]:
    recipes = load_recipes()
    seed_names = {ours: seeds for seeds, ours in SEED_NAMES.items()}
    found = {}
    for name in names:
        ours = SEED_NAMES.get(name, name)
        if ours not in recipes:
            known = ", ".join([*SEED_NAMES, *(each for each in recipes if each not in seed_names)])
            raise ConfigurationError(f"MODEL_NAME={name!r}: there is no such model; there are {known}")
        found[seed_names.get(ours, ours)] = recipes[ours]
    return found


def _routes(name: str, prefix: str) -> APIRouter:
    """The routes of one model."""
    # A prefix that comes with the inclusion is not in the routes' paths, which metrics tell.
    router = APIRouter(prefix=prefix, responses=cast(Any, BROKEN))

    def served(request: Request) -> Served:
        return request.app.state.served[name]

    @router.post(
        "/predict_learn",
        dependencies=[scope(WRITE)],
        response_model=Learned,
        responses=cast(Any, INVALID | OWNED),
    )
    async def predict_learn(
        request: Request,
        observed: Observed,
        idempotency_key: Annotated[
            str | None, Header(description="The observation_id of a body without")
        ] = None,
    ) -> JSONResponse:
        """Predicts the target, then learns it; answers when both are on the disk."""
        return JSONResponse(await _learned(served(request), observed, idempotency_key))

    @router.post(
        "/predict",
        dependencies=[scope(READ)],
        response_model=Prediction,
        responses=cast(Any, INVALID),
    )
    async def predict(request: Request, asked: Features) -> JSONResponse:
        """Predicts the next value, and learns nothing."""
        return JSONResponse(await _predicted(served(request), asked))

    @router.post(
        "/predict_many",
        dependencies=[scope(READ)],
        response_model=Forecast,
        responses=cast(Any, INVALID),
    )
    async def predict_many(
        request: Request, asked: Features, steps: Annotated[int, Query(ge=1, le=MOST_STEPS)] = FORECAST_STEPS
    ) -> JSONResponse:
        """The next values, each made of the ones before it."""
        values = await values_ahead(served(request), asked, steps)
        return JSONResponse(
            {"forecast": [{"step": step, "value": round(value, 6)} for step, value in enumerate(values, 1)]}
        )

    @router.get("/model_metrics", dependencies=[scope(READ)])
    async def model_metrics(
        request: Request,
        history: Annotated[bool, Query(description="Also the last actual values and predictions")] = False,
    ) -> JSONResponse:
        """Errors of the last 5, 10 and 20 predictions of each series, and the next values."""
        return await _metrics(served(request), history)

    @router.get("/series", dependencies=[scope(READ)])
    async def series(request: Request) -> JSONResponse:
        """The series that this service owns, with how far each has come."""
        state = await served(request).learner.recovered()
        return JSONResponse(
            {
                "series": [
                    {
                        "series_id": entry.series_id,
                        "next_offset": entry.offset + 1,
                        "last_observation_id": entry.observation_id,
                        "last_event_time": entry.event_time.isoformat(),
                    }
                    for entry in state.last.values()
                ]
            }
        )

    @router.get(
        "/predictions/stream",
        dependencies=[scope(READ)],
        response_class=StreamingResponse,
        responses={200: {"content": {"text/event-stream": {}}, "description": "Server-sent events"}},
    )
    async def stream(request: Request) -> StreamingResponse:
        """Each prediction as it is made: events `prediction`, and `lost` with a count for who is slow."""
        return StreamingResponse(
            served(request).stream.events(),
            media_type="text/event-stream",
            headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
        )

    @router.get("/health")
    async def health(request: Request) -> dict[str, Any]:
        """The process lives; `degraded` says what it does without."""
        return _health([served(request)])

    return router


def _common_routes(recipes: dict[str, Recipe], health: bool) -> APIRouter:
    """The routes over all models."""
    router = APIRouter()

    @router.get("/models", dependencies=[scope(READ)], tags=["models"])
    async def models(request: Request) -> JSONResponse:
        """The models of this process, and which of them are champions."""
        state = request.app.state
        told: dict[str, Any] = {"models": [_model(each) for each in state.served.values()]}
        if len(told["models"]) > 1:
            told["champion"] = state.champion.summary()
        return JSONResponse(told)

    @router.get(
        "/models/{name}/metrics",
        dependencies=[scope(READ)],
        tags=["models"],
        responses={404: {"description": "No such model", **REFUSED}, **cast(Any, INVALID)},
    )
    async def metrics(
        request: Request,
        name: str,
        history: Annotated[bool, Query(description="Also the last actual values and predictions")] = False,
    ) -> JSONResponse:
        """What /model_metrics of this model says."""
        try:
            (chosen,) = _recipes([name])
            return await _metrics(request.app.state.served[chosen], history)
        except (ConfigurationError, KeyError):
            raise Refused(404, f"no model {name!r} here; there are {', '.join(recipes)}") from None

    if health:

        @router.get("/health", tags=["operation"])
        async def everybody(request: Request) -> dict[str, Any]:
            """The process lives; `degraded` says what it does without."""
            return _health(request.app.state.served.values())

    return router


def _direct_routes(prefix: str, served: Callable[[], Served]) -> Iterator[DirectRoute]:
    """What clients ask of one model again and again."""
    yield DirectRoute(
        f"{prefix}/predict_learn", WRITE, Observed, lambda body, key: _learned(served(), body, key)
    )
    yield DirectRoute(f"{prefix}/predict", READ, Features, lambda body, key: _predicted(served(), body))


async def _learned(served: Served, observed: Observed, key: str | None) -> dict[str, Any]:
    call = to_call(served, observed, key if observed.observation_id is None else observed.observation_id)
    state = served.learner.state
    if state is None or observed.series_id not in state.last:
        await served.pipeline.look()
    return await served.learner.learn(call)


async def _predicted(served: Served, asked: Features) -> dict[str, Any]:
    (value,) = await values_ahead(served, asked, 1)
    return {"prediction": value}


def to_call(served: Served, observed: Observed, observation_id: str | None) -> Call:
    """What the request tells the learner.

    Raises:
        Refused: features, ids or time are not as they must be.
    """
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
        lags = _lags(observed.features)
    except ValueError as error:
        raise served.learner.refuse(str(error), call, observed.features) from None
    at = None if time is None else time.astimezone(UTC)
    return Call(observed.series_id, lags, observed.target, observation_id, at)


def _lags(features: dict[str, float]) -> tuple[float, ...]:
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
            lags = _lags(asked.features)
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


async def _metrics(served: Served, history: bool) -> JSONResponse:
    await served.learner.recovered()
    await served.pipeline.look()
    told: dict[str, Any] = {
        series_id: accuracy(served, series_id, model, entry, history)
        for series_id, (model, entry) in served.series().items()
    }
    if not told:
        told["message"] = "No predictions available yet"
    return JSONResponse(told | {"model_info": _model_info(served)})


def accuracy(
    served: Served, series_id: str, model: Model, entry: Entry | None, history: bool
) -> dict[str, Any]:
    """What /model_metrics tells of a series."""
    summary = model.metrics.summary()
    names = [f"{metric}_{window}" for window in WINDOWS for metric in ("mae", "mse", "rmse", "mape")]
    actual, prediction = _last(model, entry)
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


def _last(model: Model, entry: Entry | None) -> tuple[float | None, float | None]:
    """The last value, and what the model said of it."""
    if entry is not None:
        return entry.value, entry.answer["prediction"]
    return model.metrics.last[-1] if model.metrics.last else (None, None)


def _number(value: float, decimals: int = 6) -> float | None:
    """Rounded; None where there is no number."""
    return round(value, decimals) if math.isfinite(value) else None


def _model_info(served: Served) -> dict[str, Any]:
    recipe = served.recipe
    estimator = recipe.estimator(None)
    inner = getattr(estimator, "regressor", estimator)
    return {
        "model_type": type(inner).__name__,
        "model_name": served.name,
        "model_str": f"{recipe.name}: {recipe.description}",
        "model_attributes": {
            "recipe": recipe.name,
            "difference": recipe.difference,
            "lags": recipe.lags,
            "version": recipe.digest,
        },
    }


def _model(served: Served) -> dict[str, Any]:
    learner, recipe = served.learner, served.recipe
    state = learner.state
    return {
        "name": served.name,
        "recipe": recipe.name,
        "description": recipe.description,
        "version": recipe.digest,
        "versions": learner.versions,
        "shard": learner.shard,
        "series": len(state.last) if state else 0,
        "pipeline_series": len(served.pipeline.models),
        "offset": state.position if state else None,
        "snapshot_age_seconds": round(time.time() - learner.flushed_at, 1),
        "degraded": learner.degraded,
    }


def _health(served: Iterable[Served]) -> dict[str, Any]:
    learners = [each.learner for each in served]
    return {
        "status": "ok",
        "model_loaded": all(learner.state is not None for learner in learners),
        "degraded": "; ".join(filter(None, (learner.degraded for learner in learners))) or None,
    }


class ModelCollector(Collector):
    """What Prometheus reads, made from the models as they are when it asks."""

    def __init__(self, served: Sequence[Served], settings: Settings) -> None:
        self._served = served
        self._most_series = settings.labelled_series
        self._in_a_label = settings.forecasts_in_a_label

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        yield from self._accuracy()
        yield from self._operation()

    def _accuracy(self) -> Iterable[Metric]:
        labels = ["series", "model"]
        gauge = partial(GaugeMetricFamily, labels=labels)
        errors = {
            (metric, window): gauge(
                f"ml_model_{metric}_{window}", f"{metric.upper()} of the last {window} predictions"
            )
            for window in WINDOWS
            for metric in ("mae", "mse", "rmse", "mape")
        }
        count = CounterMetricFamily("ml_model_predictions", "Observations learned", labels=labels)
        naive = gauge(
            "ml_model_naive_mae_20",
            "MAE of the last 20 values, had each been predicted to be as the one before",
        )
        drift = CounterMetricFamily("ml_model_drift", "Times that the errors became larger", labels=labels)
        last = {
            what: gauge(f"ml_model_last_{what}", f"The last {what} of the series")
            for what in ("prediction", "actual", "error")
        }
        event_time = gauge(
            "ml_model_last_event_timestamp_seconds",
            "When the last value of the series was observed, since 1970",
        )
        ahead = GaugeMetricFamily(
            "ml_model_forecast", "The value so many steps ahead", labels=[*labels, "step"]
        )
        steps = GaugeMetricFamily(
            "ml_model_forecast_steps", "The next values, in a label", labels=[*labels, "values"]
        )
        for served in self._served:
            rest = 0
            for at, (series_id, (model, entry)) in enumerate(served.series().items()):
                if at >= self._most_series:
                    rest += model.next_offset
                    continue
                label = [series_id, served.name]
                count.add_metric(label, model.next_offset)
                summary = model.metrics.summary()
                for (metric, window), family in errors.items():
                    _add(family, label, summary[f"{metric}_{window}"])
                _add(naive, label, _naive_mae(model))
                if model.drift:
                    drift.add_metric(label, model.drift.detections)
                if entry is not None:
                    event_time.add_metric(label, entry.event_time.timestamp())
                actual, prediction = _last(model, entry)
                if actual is not None and prediction is not None:
                    _add(last["prediction"], label, prediction)
                    _add(last["actual"], label, actual)
                    _add(last["error"], label, abs(actual - prediction))
                forecast = served.forecast(series_id, model)
                for step, value in enumerate(forecast, 1):
                    _add(ahead, [*label, str(step)], value)
                if self._in_a_label:
                    steps.add_metric([*label, ",".join(str(round(value, 6)) for value in forecast)], 1)
            if rest:
                count.add_metric([OTHER, served.name], rest)
        yield from errors.values()
        yield naive
        yield drift
        yield count
        yield from last.values()
        yield event_time
        yield ahead
        if self._in_a_label:
            yield steps

    def _operation(self) -> Iterable[Metric]:
        depth = GaugeMetricFamily("model_queue_depth", "What waits for the disk", labels=["model"])
        degraded = GaugeMetricFamily("model_degraded", "1 while it does without a store", labels=["model"])
        age = GaugeMetricFamily(
            "model_snapshot_age_seconds", "Since the object store had everything", labels=["model"]
        )
        duplicates = CounterMetricFamily("model_duplicates", "Observations that came again", labels=["model"])
        refused = CounterMetricFamily("model_refused", "Observations that were refused", labels=["model"])
        for served in self._served:
            learner, label = served.learner, [served.name]
            depth.add_metric(label, learner.waiting)
            degraded.add_metric(label, int(learner.degraded is not None))
            age.add_metric(label, time.time() - learner.flushed_at)
            duplicates.add_metric(label, learner.duplicates)
            refused.add_metric(label, learner.refused)
        yield from (depth, degraded, age, duplicates, refused)


def _naive_mae(model: Model) -> float:
    """NaN before there are two values."""
    actuals = [actual for actual, _ in model.metrics.last]
    errors = [abs(value - before) for before, value in pairwise(actuals)]
    return sum(errors) / len(errors) if errors else math.nan


def _add(family: GaugeMetricFamily, label: list[str], value: float) -> None:
    if math.isfinite(value):
        family.add_metric(label, value)
