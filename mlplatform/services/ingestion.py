"""The ingestion service: the next observation of a replay, or a live price."""

from __future__ import annotations

import asyncio
import math
import re
import threading
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path as FilePath
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Header, Path, Query, Request, Response
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel

from mlplatform.domain.observations import Submission
from mlplatform.io import declaration
from mlplatform.io.cursor import Cursor
from mlplatform.io.sources.price import COINBASE, PriceSource, PriceUnavailable
from mlplatform.io.sources.replay import ReplaySource, parse_time
from mlplatform.services.app import create_app
from mlplatform.services.refusals import Refused, documented
from mlplatform.services.security import scope
from mlplatform.settings import Settings

DEFAULT_REPLAY = "retail_employment"
CURRENCY = re.compile(r"[A-Z0-9]{2,10}")
# Sources of prices, each with its answer of the last seconds.
KEPT_CURRENCIES = 100
PRICES_AT_ONCE = 8
MOST_AT_ONCE = 1000
Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        min_length=1,
        max_length=200,
        description="The same key gets the same answer again; the last 1,000 keys are known.",
    ),
]


class Observed(BaseModel):
    """One observation; `target` is null where the file has no number."""

    observation_id: int
    input: str
    target: int | float | None
    remaining: int
    series_id: str


class TimedObservation(Observed):
    event_time: datetime | None


class Observations(BaseModel):
    observations: list[TimedObservation]


class LivePrice(BaseModel):
    observation_id: str
    input: str
    target: float
    remaining: Literal["live"]
    series_id: str


class Reset(BaseModel):
    message: str
    total_observations: int


class Status(BaseModel):
    """`series_id` is null for a file of several series."""

    current_index: int
    total_observations: int
    remaining: int
    completed: bool
    series_id: str | None


class Health(BaseModel):
    status: Literal["healthy"]
    total_observations: int


class Ingestion:
    """One replay with its durable cursor, and live prices.

    Observations are numbered from 1; those of a file that grows keep their numbers.

    Raises:
        SourceError: the file cannot be read.
        CursorInUse: another process hands out the same replay.
    """

    def __init__(self, settings: Settings, exchange_url: str, registry: CollectorRegistry) -> None:
        name, declared = _replay(settings)
        rows = ReplaySource(name, declared.path, declared.series_id).read(0)
        first = 1 if declared.last is None else max(len(rows) - declared.last, 0) + 1
        path = settings.data_directory / "services" / f"ingestion-{settings.service_shard}.db"
        self._cursor = Cursor(path, name, first)
        self._rows = rows[self._cursor.first - 1 :]
        self._exchange_url = exchange_url
        self._prices: OrderedDict[str, PriceSource] = OrderedDict()
        self._turn = threading.Lock()
        # Of their own, so that an exchange that hangs holds up nobody who asks for the replay.
        self.price_threads = ThreadPoolExecutor(PRICES_AT_ONCE, "price")
        self._monthly = _monthly(self._rows)
        series = {row.series_id for row in self._rows}
        self._series_id = series.pop() if len(series) == 1 else None
        self._handed_out = Counter(
            "ingestion_observations_total", "Observations handed out", ["source"], registry=registry
        )
        remaining = Gauge("ingestion_remaining", "Observations not handed out yet", registry=registry)
        remaining.set_function(lambda: self.total - self.given)

    @property
    def total(self) -> int:
        return len(self._rows)

    @property
    def given(self) -> int:
        """How many were handed out since the beginning."""
        # A file that was cut short has fewer than it had.
        return min(self._cursor.position - self._cursor.first + 1, self.total)

    def next(self, key: str | None) -> dict[str, Any] | None:
        """The next observation; None when there is no more."""

        def answer(position: int) -> dict[str, Any] | None:
            number = position - self._cursor.first + 1
            return self._observed(number).model_dump() if number <= self.total else None

        told = self._cursor.advance(key and f"next {key}", answer)
        if told is not None:
            self._handed_out.labels("replay").inc()
        return told

    def after(self, number: int, limit: int) -> list[TimedObservation]:
        end = min(number + limit, self.total)
        return [
            TimedObservation(**dict(self._observed(each)), event_time=self._rows[each - 1].event_time)
            for each in range(number + 1, end + 1)
        ]

    def reset(self, key: str | None) -> dict[str, Any]:
        answer = Reset(message="Stream reset to beginning", total_observations=self.total)
        return self._cursor.reset(key and f"reset {key}", answer.model_dump())

    def status(self) -> Status:
        given = self.given
        return Status(
            current_index=given,
            total_observations=self.total,
            remaining=self.total - given,
            completed=given == self.total,
            series_id=self._series_id,
        )

    def price(self, currency: str, key: str | None) -> dict[str, Any]:
        """The price now, or again the one that was told for this key.

        Raises:
            PriceUnavailable: there is none.
        """
        key = key and f"next/{currency} {key}"
        if told := self._cursor.answered(key):
            return told
        price = self._source(currency).spot()
        answer = LivePrice(
            observation_id=f"{currency}_live",
            input=currency,
            target=price.amount,
            remaining="live",
            series_id=f"{currency}-USD",
        ).model_dump()
        self._handed_out.labels("price").inc()
        return self._cursor.keep(key, answer) if key else answer

    def close(self) -> None:
        self.price_threads.shutdown()
        self._cursor.close()

    def _observed(self, number: int) -> Observed:
        row = self._rows[number - 1]
        return Observed(
            observation_id=number,
            input=f"{row.event_time:%Y-%m}" if self._monthly and row.event_time else row.observation_id,
            target=_target(row.value),
            remaining=self.total - number,
            series_id=row.series_id,
        )

    def _source(self, currency: str) -> PriceSource:
        with self._turn:
            source = self._prices.pop(currency, None) or PriceSource("price", currency, self._exchange_url)
            self._prices[currency] = source
            if len(self._prices) > KEPT_CURRENCIES:
                self._prices.popitem(last=False)
        return source


router = APIRouter()


@router.get(
    "/next",
    dependencies=[scope("ingestion:write")],
    tags=["observations"],
    response_model=Observed,
    responses={204: {"description": "There is no more"}},
)
async def next_observation(request: Request, key: Key = None) -> Any:
    """The next observation of the replay, for all clients together.

    It is handed out once. A client that may fail before it has used it sends an `Idempotency-Key`, with which
    it gets the same one again, or keeps its own place and asks for `/observations`.
    """
    told = await asyncio.to_thread(_ingestion(request).next, key)
    return Response(status_code=204) if told is None else told


@router.get(
    "/next/{crypto}",
    dependencies=[scope("ingestion:write")],
    tags=["observations"],
    response_model=LivePrice,
    responses={
        404: documented("The exchange knows no such currency"),
        502: documented("The exchange's answer is no price"),
        504: documented("The exchange does not answer in time"),
    },
)
async def next_price(
    request: Request, crypto: Annotated[str, Path(description="Such as BTC")], key: Key = None
) -> Any:
    """The live price of a currency in US dollars."""
    currency = crypto.upper()
    if not CURRENCY.fullmatch(currency):
        raise Refused(404, f"{crypto[:40]!r} is not a currency such as BTC")
    try:
        ingestion, loop = _ingestion(request), asyncio.get_running_loop()
        return await loop.run_in_executor(ingestion.price_threads, ingestion.price, currency, key)
    except PriceUnavailable as error:
        later = {"Retry-After": str(error.retry_after)} if error.retry_after is not None else None
        raise Refused(error.status, str(error), later) from error


@router.get("/observations", dependencies=[scope("ingestion:read")], tags=["observations"])
async def observations(
    request: Request,
    after: Annotated[int, Query(ge=0, le=2**53, description="The last observation_id that is known")] = 0,
    limit: Annotated[int, Query(ge=1, le=MOST_AT_ONCE)] = 100,
) -> Observations:
    """Observations for a client that keeps its own place; hands out nothing."""
    return Observations(observations=_ingestion(request).after(after, limit))


@router.post("/reset", dependencies=[scope("ingestion:write")], tags=["observations"], response_model=Reset)
async def reset(request: Request, key: Key = None) -> Any:
    """Begins the replay again."""
    return await asyncio.to_thread(_ingestion(request).reset, key)


@router.get("/status", dependencies=[scope("ingestion:read")], tags=["observations"])
async def status(request: Request) -> Status:
    """How far the replay has been handed out."""
    return await asyncio.to_thread(_ingestion(request).status)


@router.get("/health", tags=["operation"])
async def health(request: Request) -> Health:
    return Health(status="healthy", total_observations=_ingestion(request).total)


def application(settings: Settings, exchange_url: str = COINBASE) -> FastAPI:
    """The service; its cursor is in the data directory."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        ingestion = await asyncio.to_thread(Ingestion, settings, exchange_url, app.state.registry)
        app.state.ingestion = ingestion
        try:
            yield
        finally:
            app.state.ingestion = None
            await asyncio.to_thread(ingestion.close)

    app = create_app(
        "Ingestion",
        "Hands out the observations of a replay one by one, and live prices.",
        settings,
        lifespan,
        lambda app: None if app.state.ingestion else "the service is ending",
    )
    app.state.ingestion = None
    app.include_router(router)
    return app


def _ingestion(request: Request) -> Ingestion:
    if (ingestion := request.app.state.ingestion) is None:
        raise Refused(503, "the service starts or ends; try again", {"Retry-After": "1"})
    return ingestion


def _replay(settings: Settings) -> tuple[str, declaration.Replay]:
    """The name of what is replayed, and where it is."""
    path: FilePath | None = settings.replay_file
    if path is None:
        return DEFAULT_REPLAY, declaration.replay(DEFAULT_REPLAY)
    return str(path.absolute()), declaration.Replay(path, path.name.partition(".")[0], None)


def _monthly(rows: Sequence[Submission]) -> bool:
    return all(row.event_time == parse_time(f"{row.event_time:%Y-%m}") for row in rows if row.event_time)


def _target(value: object) -> int | float | None:
    """A whole number as an integer, as the seed has it; JSON has no word for what is not finite."""
    if not isinstance(value, float) or not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) <= 2**53 else value
