"""The feature service: takes observations of the series that it owns, and answers with their lag features."""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, TypeVar

from fastapi import APIRouter, FastAPI, Header, Path, Request
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge
from pydantic import BaseModel, BeforeValidator, Field, WithJsonSchema

from mlplatform.domain.families import Families
from mlplatform.domain.observations import (
    BELIEVED_CLOCK_ERROR,
    LONGEST_ID,
    Refusal,
    Submission,
    Tail,
    admit,
    following,
)
from mlplatform.errors import PlatformError
from mlplatform.io import declaration
from mlplatform.io.journal import Entry, Journal, JournalUnavailable
from mlplatform.io.leases import LeaseHeld
from mlplatform.io.object_store import Conflict, StoreUnavailable
from mlplatform.io.online_store import OnlineStore, OnlineStoreUnavailable
from mlplatform.io.sources.replay import parse_time
from mlplatform.services.app import create_app
from mlplatform.services.direct import DirectRoute, answer_directly
from mlplatform.services.feature_log import NAME, FeatureLog, NotOwner, Series, move_on
from mlplatform.services.group_commit import GroupCommit
from mlplatform.services.online_features import OnlineFeatures
from mlplatform.services.refusals import Refused, documented
from mlplatform.services.security import scope
from mlplatform.settings import FIRST_SERVICE_SHARD, Settings

# Refusals that wait for the quarantine; more than these are counted only.
MOST_REFUSALS = 10_000
# Series of others, which are looked up in the log once.
MOST_ELSEWHERE = 10_000
AGAIN = {"Retry-After": "1"}

log = logging.getLogger(__name__)
Result = TypeVar("Result")


def _text(given: object) -> object:
    """Producers count their observations, or name them."""
    return str(given) if isinstance(given, int) and not isinstance(given, bool) else given


Id = Annotated[str, Field(min_length=1, max_length=LONGEST_ID)]
Key = Annotated[
    Id | None,
    Header(alias="Idempotency-Key", description="Names the observation where `observation_id` does not."),
]
SeriesPath = Annotated[str, Path(min_length=1, max_length=LONGEST_ID)]


class Added(BaseModel):
    """The values before this one: `in_1` the newest, zeros where there was none."""

    series_id: str
    features: dict[str, float]
    target: float
    available_lags: int
    observation_id: str
    offset: int


class Addition(BaseModel):
    """One observation. The same `observation_id` is taken once, and gets the same answer again."""

    series_id: Id = "default"
    # Checked by us: what is no number is put into quarantine, and the client is told why.
    value: Annotated[Any, WithJsonSchema({"type": "number"})]
    observation_id: (
        Annotated[
            Id,
            BeforeValidator(_text),
            WithJsonSchema(
                {
                    "anyOf": [
                        {"type": "string", "minLength": 1, "maxLength": LONGEST_ID},
                        {"type": "integer"},
                    ]
                }
            ),
        ]
        | None
    ) = None
    event_time: Annotated[
        str | None, Field(description="ISO 8601 or YYYY-MM, in UTC unless it says otherwise; else now")
    ] = None


class NextFeatures(BaseModel):
    """The features that the next observation of the series will have; `offset` is the last one's.

    `source`: `memory` for a series of this service; `redis` for one of others, as its owner published it.
    """

    series_id: str
    features: dict[str, float]
    available_lags: int
    offset: int
    source: Literal["redis", "memory"]


class SeriesEnd(BaseModel):
    """The last observation of a series, and the features that the next one will have."""

    series_id: str
    offset: int
    observation_id: str
    event_time: datetime
    features: dict[str, float]
    available_lags: int


class Info(BaseModel):
    service: Literal["feature_service"]
    max_lags: int
    output_format: Literal["model_ready_in_1_to_in_N"]


class Health(BaseModel):
    """`degraded`: answers are right, but Redis or the object store does not have all of them."""

    status: Literal["healthy"]
    service: Literal["feature_service"]
    degraded: bool


class Metrics:
    def __init__(self, registry: CollectorRegistry) -> None:
        self.added = Counter("features_added", "Observations taken", registry=registry)
        self.repeated = Counter("features_repeated", "Observations that were taken before", registry=registry)
        self.refused = Counter("features_refused", "Observations refused", ["reason"], registry=registry)
        self.degraded = _gauge("features_degraded", "1 if Redis or the object store is away", registry)
        self.entries = _gauge("features_journal_entries", "Observations that only this disk has", registry)
        self.age = _gauge(
            "features_flush_age_seconds", "Since all was in the object store for the last time", registry
        )
        self.redis = _gauge("redis_up", "1 if Redis answers", registry)


class Features:
    """The series of one shard. Belongs to one event loop, on which alone its state changes.

    Raises:
        JournalInUse: another process serves the shard from the same disk.
        ConfigurationError: a store is not configured.
    """

    def __init__(self, settings: Settings, registry: CollectorRegistry) -> None:
        self._settings = settings
        self._flush_seconds = settings.flush_seconds
        self._most_series = settings.most_series
        self._families = _widened(declaration.families(), settings.served_lags)
        path = settings.data_directory / "services" / f"{NAME}-{settings.service_shard}.db"
        self._journal = Journal(path)
        try:
            self._log = FeatureLog(settings, self._journal, self._families)
            store = OnlineStore(settings.redis_url, settings.s3.prefix)
        except BaseException:
            self._journal.close()
            raise
        self._commits = GroupCommit(self._journal, self._ended)
        self._online = OnlineFeatures(store, lambda: self._committed, self.lags)
        # What is on its way to the disk is in `_series` only; None after a commit that failed.
        self._series: dict[str, Series] | None = None
        self._position = 0
        self._committed: dict[str, Series] = {}
        self._committed_position = 0
        self._adding: dict[tuple[str, str], asyncio.Task[dict[str, Any]]] = {}
        self._asking: dict[str, asyncio.Task[int | None]] = {}
        self._elsewhere: dict[str, int] = {}
        self._refusals: list[Refusal] = []
        self._next_refusal = 0
        self._store_up: bool | None = None
        self._recovered = False
        self._flushed_at = time.monotonic()
        self._ending = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._flusher = ThreadPoolExecutor(1, "flush")
        self._readers = ThreadPoolExecutor(2, "log")
        self._why_not: str | None = "the series are being read"
        self._metrics = Metrics(registry)
        self._metrics.degraded.set_function(lambda: self.degraded)
        self._metrics.entries.set_function(lambda: self._committed_position - self._log.position)
        self._metrics.age.set_function(lambda: time.monotonic() - self._flushed_at)
        self._metrics.redis.set_function(lambda: bool(self._online.up))

    @property
    def degraded(self) -> bool:
        return not (self._online.up and self._store_up)

    @property
    def not_ready(self) -> str | None:
        return self._why_not

    @property
    def max_lags(self) -> int:
        return self._settings.served_lags or self._families.widest

    def lags(self, series_id: str) -> int:
        """The N of `in_1 … in_N`."""
        return self._settings.served_lags or self._families.of(series_id).lags

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._keep())]

    async def stop(self) -> None:
        """Answers what was asked, and hands over what this process alone has, as far as the stores answer."""
        self._why_not = self._why_not or "the service is ending"
        self._ending.set()
        if self._adding:
            await asyncio.wait(list(self._adding.values()))
        await self._commits.drain()
        flusher, *publishers = self._tasks
        await asyncio.wait([flusher])
        for each in publishers:
            each.cancel()
        await asyncio.gather(*publishers, return_exceptions=True)
        if self._recovered:
            if self._online.up:
                await self._online.publish()
            await self._flush()
        await self._in(self._flusher, self._release)
        self._online.close()
        self._flusher.shutdown()
        self._readers.shutdown()
        self._journal.close()

    async def add(self, given: Addition, key: str | None) -> dict[str, Any]:
        """Takes one observation; returns when it is durable.

        Raises:
            Refused: it is not taken, and why; or it cannot be taken now, and has had no effect.
        """
        if self._why_not:
            raise Refused(503, f"{self._why_not}; try again", AGAIN)
        named = given.observation_id or key
        identity = given.series_id, named or uuid.uuid4().hex
        # Who repeats what is still on its way gets the answer of the first.
        if adding := self._adding.get(identity):
            self._metrics.repeated.inc()
        else:
            adding = asyncio.create_task(self._add(given, identity[1], known=named is not None))
            self._adding[identity] = adding
            adding.add_done_callback(lambda done: self._added(identity, done))
        # What has begun goes on, also when its client leaves.
        return await asyncio.shield(adding)

    def end_of(self, series_id: str) -> dict[str, Any]:
        """What `SeriesEnd` has.

        Raises:
            Refused: the series is not owned here.
        """
        series = self._committed.get(series_id)
        if series is None or series.tail.last_event_time is None:
            raise self._unknown(series_id)
        lags = self.lags(series_id)
        return {
            "series_id": series_id,
            "offset": series.offset,
            "observation_id": series.observation_id,
            "event_time": series.tail.last_event_time.astimezone(UTC).isoformat().replace("+00:00", "Z"),
            **_features(series.values(lags), lags),
        }

    async def next_features(self, series_id: str) -> dict[str, Any]:
        """From memory, which is the truth of the series that are owned here; those of others from Redis.

        Raises:
            Refused: nobody knows the series, or Redis is away and does not say.
        """
        lags = self.lags(series_id)
        if own := self._committed.get(series_id):
            offset, values, source = own.offset, own.values(lags), "memory"
        else:
            try:
                found = await self._online.read(series_id)
            except OnlineStoreUnavailable as error:
                raise Refused(503, str(error), AGAIN) from error
            if found is None:
                raise self._unknown(series_id)
            offset, values, source = found[0], tuple(found[1][:lags]), "redis"
        return {"series_id": series_id, **_features(values, lags), "offset": offset, "source": source}

    async def _add(self, given: Addition, name: str, known: bool) -> dict[str, Any]:
        """`known`: whether the observation may have been taken before."""
        series_id = given.series_id
        if known and (answer := await asyncio.to_thread(self._journal.answer, series_id, name)):
            self._metrics.repeated.inc()
            return answer if "features" in answer else await self._recalled(series_id, answer["offset"])
        await self._check_owner(series_id)
        entry = self._taken(given, name)
        try:
            await self._commits.commit(entry)
        except JournalUnavailable as error:
            raise Refused(503, f"nothing was taken: {error}", AGAIN) from error
        except ValueError as error:
            # The one before it failed a moment ago, and it does not follow the last one that was kept.
            raise Refused(503, "nothing was taken: what came before it was lost", AGAIN) from error
        self._metrics.added.inc()
        await self._online.changed(series_id, entry.offset == 0)
        return entry.answer

    def _taken(self, given: Addition, name: str) -> Entry:
        """The observation as the next entry of the journal; moves its series on. Does not wait."""
        series_id, now = given.series_id, datetime.now(UTC)
        series = self._current.get(series_id)
        tail = series.tail if series else Tail()
        named = given.event_time
        event_time = following(now, tail.last_event_time) if named is None else parse_time(named)
        submission = Submission(NAME, self._next_refusal, series_id, name, event_time, given.value)
        tails = {series_id: tail}
        # Our own time is never early.
        until = None if given.event_time is None else now + BELIEVED_CLOCK_ERROR
        accepted, refused = admit([submission], tails, set(), self._families, until)
        if refused:
            self._quarantine(refused[0])
            raise Refused(422, refused[0].reason)
        [observation] = accepted
        lags = self.lags(series_id)
        entry = Entry(
            self._position,
            series_id,
            observation.offset,
            name,
            observation.event_time,
            observation.value,
            _answer(series_id, name, observation.offset, observation.value, tail.values[:lags], lags),
            now,
        )
        self._position += 1
        self._current[series_id] = Series(tails[series_id], name)
        return entry

    @property
    def _current(self) -> dict[str, Series]:
        """The ends of all series with what is on its way; read again from the journal if that was lost.

        Raises:
            JournalUnavailable: it cannot be read.
        """
        if self._series is None:
            series = dict(self._committed)
            # A commit may have reached the disk though it failed.
            entries = self._journal.since(self._committed_position)
            move_on(series, entries, self._families)
            self._committed_position += len(entries)
            self._position, self._committed = self._committed_position, series
            self._series = dict(series)
        return self._series

    def _ended(self, entries: Sequence[Entry], error: Exception | None) -> None:
        """Moves on what the disk has, or throws away all that was on its way together."""
        if error is not None:
            self._series = None
            return
        move_on(self._committed, entries, self._families)
        self._committed_position = entries[-1].position + 1

    async def _recalled(self, series_id: str, offset: int) -> dict[str, Any]:
        """The answer of an observation of which this disk has only the id."""
        entry = await self._in(self._readers, self._log.recall, series_id, offset)
        lags = self.lags(series_id)
        before = (entry.lags or ())[:lags]
        return _answer(series_id, entry.observation_id, offset, entry.value, before, lags)

    async def _check_owner(self, series_id: str) -> None:
        """Refuses what belongs to others; they are looked up when a series is new."""
        if series_id in self._current:
            return
        if len(self._current) >= self._most_series:
            raise Refused(
                409,
                f"there are {len(self._current)} series, and no more are taken: raise"
                " MLPLATFORM_MOST_SERIES if memory allows, or send this one to another shard",
            )
        if series_id in declaration.replayed():
            raise self._of_the_pipeline(series_id)
        if (shard := self._elsewhere.get(series_id)) is None:
            if self._store_up is False:
                raise Refused(
                    503,
                    f"whether series {series_id!r}, which is new here, belongs to the pipeline is in the log,"
                    " and the object store does not answer; look at `mlplatform status`",
                    AGAIN,
                )
            if (asking := self._asking.get(series_id)) is None:
                asking = asyncio.create_task(self._in(self._readers, self._log.owner_of, series_id))
                self._asking[series_id] = asking
                asking.add_done_callback(lambda _: self._asking.pop(series_id))
            shard = await asyncio.shield(asking)
        if shard is None:
            return
        if len(self._elsewhere) >= MOST_ELSEWHERE:
            self._elsewhere.clear()
        self._elsewhere[series_id] = shard
        if shard < FIRST_SERVICE_SHARD:
            raise self._of_the_pipeline(series_id)
        raise Refused(
            409,
            f"series {series_id!r} belongs to the feature service with MLPLATFORM_SERVICE_ORDINAL="
            f"{shard - FIRST_SERVICE_SHARD}: send it there, or name another series",
        )

    def _of_the_pipeline(self, series_id: str) -> Refused:
        return Refused(
            409,
            f"series {series_id!r} belongs to the pipeline: hand its observations in with"
            f" `mlplatform push {series_id} VALUE`, or name another series",
        )

    def _quarantine(self, refusal: Refusal) -> None:
        # The first word of a reason: its kind, of which there are few.
        self._metrics.refused.labels(refusal.reason.partition(":")[0]).inc()
        if len(self._refusals) < MOST_REFUSALS:
            self._refusals.append(refusal)
            self._next_refusal += 1

    def _unknown(self, series_id: str) -> Refused:
        return Refused(404, f"no series {series_id!r}: nothing of it was added here")

    def _added(self, identity: tuple[str, str], done: asyncio.Task[dict[str, Any]]) -> None:
        del self._adding[identity]
        if not done.cancelled():
            # Its client may have gone.
            done.exception()

    async def _keep(self) -> None:
        """Reads the series, then hands over to the stores what is new, again and again."""
        while not await self._recover():
            if await self._ends_within(1):
                return
        self._tasks.append(asyncio.create_task(self._online.run()))
        await self._online.first_round()
        if not self._ending.is_set():
            self._why_not = None
        while not await self._ends_within(self._flush_seconds):
            await self._flush()

    async def _ends_within(self, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await self._ending.wait()
        except TimeoutError:
            return False
        return True

    async def _recover(self) -> bool:
        try:
            series, lost = await self._in(self._flusher, self._log.recover)
        except Exception as error:
            expected = isinstance(error, PlatformError | LeaseHeld)
            self._why_not = str(error) if expected else "the series cannot be read"
            self._say_store(error)
            return False
        self._committed, self._series = series, dict(series)
        self._committed_position = self._position = self._journal.next_position
        self._next_refusal = self._log.quarantined
        if lost:
            self._online.begin_anew()
        self._say_store(None)
        self._recovered = True
        return True

    async def _flush(self) -> None:
        upto, refusals = self._committed_position, list(self._refusals)
        try:
            await self._in(self._flusher, self._log.flush, upto, refusals)
        except Exception as error:
            if isinstance(error, NotOwner):
                self._why_not = str(error)
            self._say_store(error)
            return
        del self._refusals[: len(refusals)]
        self._flushed_at = time.monotonic()
        self._say_store(None)

    def _say_store(self, error: Exception | None) -> None:
        """Logs what changed."""
        if error is None:
            if not self._store_up:
                log.info("STORE CONNECTED")
            self._store_up = True
            return
        expected = isinstance(error, PlatformError | StoreUnavailable | LeaseHeld | Conflict)
        if self._store_up is not False or not expected:
            log.warning("STORE UNAVAILABLE: %s", error, exc_info=None if expected else error)
        self._store_up = False

    def _release(self) -> None:
        try:
            self._log.release()
        except (StoreUnavailable, Conflict) as error:
            log.warning("the shard stays owned until its lease expires: %s", error)

    async def _in(self, threads: ThreadPoolExecutor, call: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(threads, call, *arguments)


router = APIRouter()
REFUSED = documented("Refused, and why")
UNKNOWN: dict[int | str, dict[str, Any]] = {404: REFUSED, 422: REFUSED}


@router.post(
    "/add",
    dependencies=[scope("features:write")],
    tags=["features"],
    response_model=Added,
    responses={409: REFUSED, 422: REFUSED},
)
async def add(request: Request, given: Addition, key: Key = None) -> JSONResponse:
    """Takes one observation, and answers with the features that a model may know of it.

    An answered observation is never lost, and never taken twice if it has an `observation_id` or an
    `Idempotency-Key`: repeated, it gets its first answer again. 409: the series belongs to the pipeline. 422:
    the value is no finite number, absurd, or late.
    """
    return JSONResponse(await _features_of(request).add(given, key))


@router.get(
    "/series/{series_id:path}",
    dependencies=[scope("features:read")],
    tags=["features"],
    response_model=SeriesEnd,
    responses=UNKNOWN,
)
async def series(request: Request, series_id: SeriesPath) -> JSONResponse:
    """The end of a series that this service owns."""
    return JSONResponse(_features_of(request).end_of(series_id))


@router.get(
    "/features/{series_id:path}",
    dependencies=[scope("features:read")],
    tags=["features"],
    response_model=NextFeatures,
    responses=UNKNOWN,
)
async def features(request: Request, series_id: SeriesPath) -> JSONResponse:
    """The features of the next observation of any series, also of the pipeline's."""
    return JSONResponse(await _features_of(request).next_features(series_id))


@router.get("/info", dependencies=[scope("features:read")], tags=["features"])
async def info(request: Request) -> Info:
    """`max_lags`: the most that any series has."""
    return Info(
        service="feature_service",
        max_lags=_features_of(request).max_lags,
        output_format="model_ready_in_1_to_in_N",
    )


@router.get("/health", tags=["operation"])
async def health(request: Request) -> Health:
    return Health(status="healthy", service="feature_service", degraded=_features_of(request).degraded)


def application(settings: Settings) -> FastAPI:
    """The service; its journal is in the data directory."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.features = features = Features(settings, app.state.registry)
        features.start()
        try:
            yield
        finally:
            await features.stop()

    app = create_app(
        "Features",
        "Keeps series of observations, and makes lag features of them.",
        settings,
        lifespan,
        lambda app: app.state.features.not_ready if app.state.features else "the service starts",
    )
    app.state.features = None
    app.include_router(router)
    answer_directly(
        app,
        DirectRoute(
            "/add", "features:write", Addition, lambda given, key: app.state.features.add(given, key)
        ),
    )
    return app


def _features_of(request: Request) -> Features:
    return request.app.state.features


def _features(values: tuple[float, ...], lags: int) -> dict[str, Any]:
    """`features` and `available_lags` of what follows the values, which are newest first."""
    padded = [*values, *[0.0] * (lags - len(values))]
    named = {f"in_{lag}": value for lag, value in enumerate(padded, start=1)}
    return {"features": named, "available_lags": len(values)}


def _answer(
    series_id: str, name: str, offset: int, value: float, before: tuple[float, ...], lags: int
) -> dict[str, Any]:
    """The reply to an observation; `before` are the values before it, at most `lags`, newest first."""
    of_it = _features(before, lags)
    return {
        "series_id": series_id,
        "features": of_it["features"],
        "target": value,
        "available_lags": of_it["available_lags"],
        "observation_id": name,
        "offset": offset,
    }


def _widened(families: Families, lags: int | None) -> Families:
    """The families, each with as many lags as are served."""
    return Families(tuple(replace(each, lags=max(each.lags, lags or 0)) for each in families))


def _gauge(name: str, text: str, registry: CollectorRegistry) -> Gauge:
    return Gauge(name, text, registry=registry)
