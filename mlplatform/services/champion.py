"""All models of a process as one: each predicts and learns every observation, and the champion answers.

So a model that is added is shadowed from its first observation on, and serves a series once it has won its
contest (see `Contest`). A challenger, which the settings name, answers a share of the observations and cannot
win, until the settings no longer name it.
"""

from __future__ import annotations

import asyncio
import hashlib
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, TypeVar
from weakref import WeakValueDictionary

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse
from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from pydantic import Field

from mlplatform.domain.champion import Contest
from mlplatform.domain.observations import following
from mlplatform.domain.recipe import Recipe
from mlplatform.errors import TransientError
from mlplatform.io.champion_journal import ChampionJournal, Standing
from mlplatform.io.results import FORECAST_STEPS
from mlplatform.services.direct import DirectRoute
from mlplatform.services.learner import Call
from mlplatform.services.model_metrics import OTHER
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
    unfit_id,
)
from mlplatform.services.refusals import Refused
from mlplatform.services.security import scope
from mlplatform.services.served import Served, accuracy, values_ahead
from mlplatform.settings import ConfigurationError, Settings

CHAMPION, CHALLENGER = "champion", "challenger"

Result = TypeVar("Result")


class Asked(Features):
    """What `predict` is asked; `observation_id` that of the observation to come, if it is known."""

    observation_id: str | None = Field(
        default=None,
        description="Then who answers is who would answer this observation; else it is the champion",
    )


class Said(Prediction):
    model: str = Field(description="Who says it")


class Answered(Learned):
    """What the model that serves said; `offset` counts the observations that were answered here."""

    model: str = Field(description="Who said it")
    shadow: dict[str, float] = Field(description="What the other models said, before they learned it too")


class Foretold(Forecast):
    model: str = Field(description="Who says it")


@dataclass(frozen=True)
class Challenger:
    """A model of the process that answers a share (0 to 1) of the observations."""

    name: str
    share: float

    def takes(self, series_id: str, observation_id: str) -> bool:
        """Always the same of one observation, whoever asks, and when."""
        digest = hashlib.blake2b(f"{series_id}\n{observation_id}".encode(), digest_size=8).digest()
        return int.from_bytes(digest) < self.share * 2**64


def challenger(settings: Settings, recipes: Mapping[str, Recipe]) -> Challenger | None:
    """The challenger among the models of a process, by the name that clients know it by.

    Raises:
        ConfigurationError: it is none of them, or the only one.
    """
    named = settings.challenger
    if named is None:
        return None
    name, share = named
    for known, recipe in recipes.items():
        if name in (known, recipe.name) and len(recipes) > 1:
            return Challenger(known, share)
    raise ConfigurationError(
        f"MLPLATFORM_CHALLENGER={name}:{share:g}: the challenger must be one of several models in this"
        f" process, which has {', '.join(recipes)}: `mlplatform serve models --model … --model {name}`, or"
        " unset it"
    )


class Champion:
    """The models of a process behind one name.

    Observations of one series are given to the models one after another, so that all of them learn it in one
    order. What fails in one model fails for the client, who gives the observation again: the models' own
    journals see to it that who has learned it does not learn it twice.
    """

    def __init__(self, served: Mapping[str, Served], chosen: Challenger | None, settings: Settings) -> None:
        self.served = served
        self.challenger = chosen
        self.answers: Counter[tuple[str, str]] = Counter()
        self.changes: Counter[str] = Counter()
        self.standings: dict[str, Standing] = {}
        self._path = settings.data_directory / "services" / f"{CHAMPION}-{settings.service_shard}.db"
        # A baseline is there to be compared with, as in the pipeline.
        models = {name for name, each in served.items() if not each.recipe.baseline} or set(served)
        self._eligible = models - ({chosen.name} if chosen else set()) or models
        # Prometheus has to see a counter at 0 to count the first.
        self.answers.update(dict.fromkeys(((name, CHAMPION) for name in self._eligible), 0))
        if chosen:
            self.answers[chosen.name, CHALLENGER] = 0
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._in_work: set[asyncio.Task[dict[str, Any]]] = set()
        self._disk = ThreadPoolExecutor(1, CHAMPION)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Raises:
        ChampionJournalInUse: another process of this machine has it.
        """
        self._journal = await asyncio.to_thread(ChampionJournal, self._path)
        try:
            self.standings = await self._on_disk(self._journal.standings)
            for standing in self.standings.values():
                self._strip(standing.contest)
            yield
        finally:
            if self._in_work:
                await asyncio.wait(self._in_work)
            self._disk.shutdown()
            self._journal.close()

    async def learn(self, call: Call) -> dict[str, Any]:
        """Lets every model predict and learn the observation; returns the answer when all of it is durable.

        Raises:
            Refused: a model refuses it, or has not learned it and may yet.
            TransientError: the answer could not be kept; the observation may be given again.
        """
        work = asyncio.create_task(self._learn(call, call.observation_id or uuid.uuid4().hex))
        self._in_work.add(work)
        work.add_done_callback(self._in_work.discard)
        # Who leaves does not leave half of the models behind.
        return await asyncio.shield(work)

    async def ahead(self, asked: Asked, steps: int) -> tuple[str, list[float]]:
        """Who serves, and the next values that it says.

        Raises:
            Refused: see `learn`; nor does the pipeline's champion answer here.
        """
        for what, given in (("series_id", asked.series_id), ("observation_id", asked.observation_id)):
            if given is not None and (reason := unfit_id(what, given)):
                raise Refused(422, reason)
        await self._check_owner(asked.series_id)
        name = self.serving(asked.series_id, asked.observation_id)
        return name, await values_ahead(self.served[name], asked, steps)

    def summary(self) -> dict[str, Any]:
        """Of how many series each model is champion, and who is the challenger."""
        champions = Counter(standing.contest.champion for standing in self.standings.values())
        return {
            "undecided": champions.pop(None, 0),
            "champion_of": dict.fromkeys(self.served, 0) | champions,
            "challenger": self.challenger and asdict(self.challenger),
        }

    def serving(self, series_id: str, observation_id: str | None = None) -> str:
        """Who answers for the series now."""
        states = {name: each.learner.state for name, each in self.served.items()}
        able = {name for name, state in states.items() if state is not None and series_id in state.last}
        standing = self.standings.get(series_id)
        contest = standing.contest if standing else Contest()
        return self._chosen(contest, able, series_id, observation_id)[0]

    def _chosen(
        self, contest: Contest, able: Collection[str], series_id: str, observation_id: str | None
    ) -> tuple[str, str]:
        """Who answers, and as what; `able` have learned some of the series, the others know nothing of it."""
        one = self.challenger
        if one and one.name in able and observation_id and one.takes(series_id, observation_id):
            return one.name, CHALLENGER
        names = self._eligible & set(able) or self._eligible
        return contest.predict(dict.fromkeys(names, 0.0), self._eligible)[0], CHAMPION

    async def _learn(self, call: Call, observation_id: str) -> dict[str, Any]:
        series_id = call.series_id
        async with self._turns.setdefault(series_id, asyncio.Lock()):
            if call.observation_id is not None:
                known = await self._on_disk(self._journal.answer, series_id, observation_id)
                if known is not None:
                    return known
            standing = await self._standing(series_id)
            said = await self._said(self._timed(replace(call, observation_id=observation_id)))
            offset, contest = standing.next_offset, standing.contest
            predictions = {name: answer["prediction"] for name, answer in said.items()}
            # What a model says before it has learned anything of a series is no prediction to judge it by.
            able = {name: predictions[name] for name, answer in said.items() if answer["offset"] > 0}
            name, role = self._chosen(contest, able, series_id, observation_id)
            answer = {
                "prediction": predictions.pop(name),
                "series_id": series_id,
                "observation_id": observation_id,
                "offset": offset,
                "model": name,
                "shadow": predictions,
            }
            before = contest.champion
            if able:
                contest.learn(offset, call.value, able, self._eligible)
            standing = Standing(contest, offset + 1)
            try:
                await self._on_disk(self._journal.append, answer, standing)
            except BaseException as error:
                # It has counted what is not on the disk: it is read again when it is needed.
                self.standings.pop(series_id, None)
                if isinstance(error, TransientError):
                    raise self._again(observation_id, f"{error}; the models have learned this") from error
                raise
            self.standings[series_id] = standing
            self.answers[name, role] += 1
            self.changes[series_id] += before is not None and contest.champion != before
            return answer

    def _timed(self, call: Call) -> Call:
        """With one time for all models: else one that failed might find it late when it comes again."""
        if call.event_time is not None:
            return call
        states = (each.learner.state for each in self.served.values())
        last = [state.last[call.series_id] for state in states if state and call.series_id in state.last]
        given = [entry.event_time for entry in last if entry.observation_id == call.observation_id]
        newest = max((entry.event_time for entry in last), default=None)
        return replace(call, event_time=given[0] if given else following(datetime.now(UTC), newest))

    async def _said(self, call: Call) -> dict[str, dict[str, Any]]:
        """Each model's answer."""
        await self._check_owner(call.series_id)
        results = await asyncio.gather(
            *(each.learner.learn(call) for each in self.served.values()), return_exceptions=True
        )
        answers: dict[str, dict[str, Any]] = {}
        failed: dict[str, Refused] = {}
        for name, result in zip(self.served, results, strict=True):
            match result:
                case dict():
                    answers[name] = result
                case Refused():
                    failed[name] = result
                case TransientError():
                    failed[name] = Refused(503, str(result))
                case _:
                    raise result
        if failed:
            raise self._failure(call.observation_id, answers, failed)
        return answers

    def _failure(
        self, observation_id: str | None, answers: Mapping[str, Any], failed: Mapping[str, Refused]
    ) -> Refused:
        status = max(each.status_code for each in failed.values())
        if not answers and status < 500:
            return next(iter(failed.values()))
        reasons = "; ".join(f"{name}: {each.detail}" for name, each in failed.items())
        if status == 422:
            return Refused(status, f"not every model has learned this, nor will ({reasons})")
        return self._again(observation_id, f"not every model has learned this ({reasons})", status)

    def _again(self, observation_id: str | None, reason: str, status: int = 503) -> Refused:
        return Refused(
            status,
            f"{reason}. Give it again with the observation_id {observation_id!r}: nobody learns it twice",
            {"Retry-After": "1"} if status == 503 else None,
        )

    async def _check_owner(self, series_id: str) -> None:
        """Before any model has learned something of a series that is not for all of them."""
        states = [(each.pipeline, each.learner.state) for each in self.served.values()]
        new = [pipeline for pipeline, state in states if state is None or series_id not in state.last]
        if not new:
            return
        await asyncio.gather(*(pipeline.look() for pipeline in new))
        if any(pipeline.claims(series_id) for pipeline in new):
            raise Refused(
                409,
                f"series {series_id!r} belongs to the pipeline, which has a champion of its own (`mlplatform"
                " results` shows it): push observations there, and ask one model for its predictions",
            )

    async def _standing(self, series_id: str) -> Standing:
        if known := self.standings.get(series_id):
            return known
        standing = await self._on_disk(self._journal.standing, series_id) or Standing(Contest(), 0)
        self._strip(standing.contest)
        return standing

    def _strip(self, contest: Contest) -> None:
        """Who is made the challenger is the champion no more."""
        if self.challenger and contest.champion == self.challenger.name:
            contest.champion = None

    async def _on_disk(self, work: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._disk, work, *arguments)


router = APIRouter(prefix="/models/champion", responses=BROKEN)


@router.post(
    "/predict_learn",
    dependencies=[scope(WRITE)],
    response_model=Answered,
    responses=INVALID | OWNED,
)
async def predict_learn(
    request: Request,
    observed: Observed,
    idempotency_key: Key = None,
) -> JSONResponse:
    """Lets every model predict the target, then learn it; one of them answers, when all of it is on the disk.

    Where a model fails, the reply names it, and the observation_id with which to give the observation again:
    then those learn it that have not.
    """
    return JSONResponse(await _learned(_champion(request), observed, idempotency_key))


@router.post("/predict", dependencies=[scope(READ)], response_model=Said, responses=INVALID | OWNED)
async def predict(request: Request, asked: Asked) -> JSONResponse:
    """Predicts the next value, and learns nothing."""
    model, (value,) = await _champion(request).ahead(asked, 1)
    return JSONResponse({"prediction": value, "model": model})


@router.post("/predict_many", dependencies=[scope(READ)], response_model=Foretold, responses=INVALID | OWNED)
async def predict_many(request: Request, asked: Asked, steps: Steps = FORECAST_STEPS) -> JSONResponse:
    """The next values, each made of the ones before it."""
    model, values = await _champion(request).ahead(asked, steps)
    return JSONResponse({"forecast": numbered(values), "model": model})


@router.get("/metrics", dependencies=[scope(READ)])
@router.get("/model_metrics", dependencies=[scope(READ)])
async def model_metrics(
    request: Request,
    history: History = False,
) -> JSONResponse:
    """Of each series the errors of the model that serves it, and how the contest stands."""
    champion = _champion(request)
    told: dict[str, Any] = {}
    # Others may come while a model is waited for.
    for series_id, standing in list(champion.standings.items()):
        served = champion.served[champion.serving(series_id)]
        state = await served.learner.recovered()
        if model := state.model(series_id):
            contest = standing.contest
            told[series_id] = accuracy(served, series_id, model, state.last.get(series_id), history) | {
                "model": served.name,
                "champion": contest.champion,
                "since_offset": contest.since_offset,
                "contest_errors": contest.errors,
                "changes": [asdict(change) for change in contest.changes],
            }
    if not told:
        told["message"] = "No predictions available yet"
    return JSONResponse(told | {"model_info": {"model_name": CHAMPION} | champion.summary()})


def direct_route(champion: Callable[[], Champion]) -> DirectRoute:
    """What clients ask again and again."""
    path = f"{router.prefix}/predict_learn"
    return DirectRoute(path, WRITE, Observed, lambda body, key: _learned(champion(), body, key))


async def _learned(champion: Champion, observed: Observed, key: str | None) -> dict[str, Any]:
    first = next(iter(champion.served.values()))
    return await champion.learn(to_call(first.learner, observed, key))


def _champion(request: Request) -> Champion:
    return request.app.state.champion


class ChampionCollector(Collector):
    """What Prometheus reads of the champion."""

    def __init__(self, champion: Champion, settings: Settings) -> None:
        self._champion = champion
        self._most_series = settings.labelled_series

    def describe(self) -> Iterable[Metric]:
        return []

    def collect(self) -> Iterable[Metric]:
        serves = GaugeMetricFamily(
            "ml_champion", "1 for the champion of the series", labels=["series", "model"]
        )
        changes = CounterMetricFamily(
            "ml_champion_changes", "Times that another model became champion", labels=["series"]
        )
        rest: list[int] = []
        for at, (series_id, standing) in enumerate(self._champion.standings.items()):
            if at >= self._most_series or series_id == OTHER:
                rest.append(self._champion.changes[series_id])
                continue
            changes.add_metric([series_id], self._champion.changes[series_id])
            if name := standing.contest.champion:
                serves.add_metric([series_id, name], 1)
        if rest:
            changes.add_metric([OTHER], sum(rest))
        answers = CounterMetricFamily(
            "ml_champion_answers",
            "Observations that the model answered, as champion or as challenger",
            labels=["model", "role"],
        )
        for (name, role), count in self._champion.answers.items():
            answers.add_metric([name, role], count)
        yield from (serves, changes, answers)
