"""The model service: predicts, learns and tells how well, for clients of the seed and for newer ones."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from prometheus_client.registry import Collector

from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.results import FORECAST_STEPS
from mlplatform.io.stores import Stores
from mlplatform.services import champion
from mlplatform.services.app import create_app
from mlplatform.services.direct import DirectRoute, answer_directly
from mlplatform.services.model_metrics import ModelCollector
from mlplatform.services.model_requests import (
    BROKEN,
    INVALID,
    OWNED,
    READ,
    WRITE,
    Features,
    Forecast,
    History,
    Key,
    Learned,
    Observed,
    Prediction,
    Steps,
    numbered,
    to_call,
)
from mlplatform.services.refusals import Refused, documented
from mlplatform.services.security import scope
from mlplatform.services.served import Served, accuracy, values_ahead
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


def application(settings: Settings, names: Sequence[str] = ()) -> FastAPI:
    """The service of one model at the root, or of several below /models/{name}.

    Args:
        names: of models, the seed's or our recipes'; else MODEL_NAME, else the seed's default.

    Raises:
        ConfigurationError: there is no model of such a name.
    """
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
            answer_directly(app, *_direct_routes(prefix, lambda name=name: app.state.served[name]))
    if not single:
        app.include_router(champion.router, tags=["champion"])
        answer_directly(app, champion.direct_route(lambda: app.state.champion))
    app.include_router(_common_routes(recipes, health=not single))
    return app


DESCRIPTION = """Models that predict an observation, then learn from it.

What is answered is on the disk. A call with an `observation_id`, or an `Idempotency-Key`, may be made again:
it gets its first answer, and nothing is learned twice. Unlike the services that this one replaces: the first
prediction is a number for every model, values that would spoil a model are refused (422) and leave it as it
was, every series has its own model and metrics, and a restart forgets nothing.
"""


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
    router = APIRouter(prefix=prefix, responses=BROKEN)

    def served(request: Request) -> Served:
        return request.app.state.served[name]

    @router.post(
        "/predict_learn",
        dependencies=[scope(WRITE)],
        response_model=Learned,
        responses=INVALID | OWNED,
    )
    async def predict_learn(
        request: Request,
        observed: Observed,
        idempotency_key: Key = None,
    ) -> JSONResponse:
        """Predicts the target, then learns it; answers when both are on the disk."""
        return JSONResponse(await _learned(served(request), observed, idempotency_key))

    @router.post(
        "/predict",
        dependencies=[scope(READ)],
        response_model=Prediction,
        responses=INVALID,
    )
    async def predict(request: Request, asked: Features) -> JSONResponse:
        """Predicts the next value, and learns nothing."""
        return JSONResponse(await _predicted(served(request), asked))

    @router.post(
        "/predict_many",
        dependencies=[scope(READ)],
        response_model=Forecast,
        responses=INVALID,
    )
    async def predict_many(request: Request, asked: Features, steps: Steps = FORECAST_STEPS) -> JSONResponse:
        """The next values, each made of the ones before it."""
        values = await values_ahead(served(request), asked, steps)
        return JSONResponse({"forecast": numbered(values)})

    @router.get("/model_metrics", dependencies=[scope(READ)])
    async def model_metrics(
        request: Request,
        history: History = False,
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
        responses={404: documented("No such model"), **INVALID},
    )
    async def metrics(
        request: Request,
        name: str,
        history: History = False,
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
    call = to_call(served.learner, observed, key)
    state = served.learner.state
    if state is None or observed.series_id not in state.last:
        await served.pipeline.look()
    return await served.learner.learn(call)


async def _predicted(served: Served, asked: Features) -> dict[str, Any]:
    (value,) = await values_ahead(served, asked, 1)
    return {"prediction": value}


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
