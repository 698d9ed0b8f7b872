"""`mlplatform e2e`: one observation from ingestion through features to all models, as a job does it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import urlsplit

import click

from mlplatform.cli.serve import DEFAULT_MODELS, PORTS
from mlplatform.errors import PlatformError
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import httpx

# Each call has so long, with all its attempts.
SECONDS = 10.0
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0
PASSING = (429, 503)
LONGEST_KEY = 200
LONGEST_DETAIL = 300


class CallFailed(PlatformError):
    """A service did not do what it was asked."""


class Exhausted(Exception):
    """Ingestion has no more observations."""


class Reply(dict[str, Any]):
    """A JSON object that a service answered."""

    def __missing__(self, name: str) -> NoReturn:
        raise CallFailed(f"the answer has no {name!r}")


@dataclass(frozen=True)
class Job:
    """What one run asks of whom; `key` tells the services whether they have seen the run before."""

    ingestion: str
    features: str
    models: dict[str, str]
    series_id: str
    key: str
    steps: int


def _default(name: str, default: str) -> Callable[[], str]:
    return lambda: Settings.load().job.get(name) or default


def _models(_: click.Context, __: click.Parameter, given: Sequence[str]) -> dict[str, str]:
    models = {}
    for each in given or Settings.load().job.get("models", "").split(","):
        name, equals, url = (part.strip() for part in each.partition("="))
        if not each:
            continue
        if not (name and equals) or name in models:
            raise click.BadParameter(f"{each!r} is not NAME=URL with a name of its own")
        models[name] = _url(url)
    return models or {name: f"http://127.0.0.1:{PORTS[name]}" for name in DEFAULT_MODELS}


def _url(given: str) -> str:
    """An address to which paths can be added."""
    try:
        parts = urlsplit(given)
        # Reading the port is what finds one that cannot be.
        fits = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        fits = False
    if not fits or not given.isprintable() or " " in given or "?" in given or "#" in given:
        raise click.BadParameter(f"{given!r} is not a URL such as http://127.0.0.1:8010")
    return given.rstrip("/")


def _address(_: click.Context, __: click.Parameter, given: str) -> str:
    return _url(given)


def _key(_: click.Context, __: click.Parameter, given: str) -> str:
    if not (given.isascii() and given.isprintable() and len(given) <= LONGEST_KEY):
        raise click.BadParameter(f"a key has at most {LONGEST_KEY} printable ASCII characters")
    return given


def _token(_: click.Context, __: click.Parameter, given: str | None) -> str | None:
    """Without the line break that files of secrets end with."""
    token = (given or "").strip()
    if not (token.isascii() and token.isprintable()):
        # Not told which: it is a secret, also when it is wrong.
        raise click.BadParameter("the token has characters that no header can have")
    return token or None


@click.command()
@click.option(
    "--ingestion-url",
    default=_default("ingestion_url", f"http://127.0.0.1:{PORTS['ingestion']}"),
    callback=_address,
    help="Or MLPLATFORM_E2E_INGESTION_URL; port 8002 of this machine unless set.",
)
@click.option(
    "--features-url",
    default=_default("features_url", f"http://127.0.0.1:{PORTS['features']}"),
    callback=_address,
    help="Or MLPLATFORM_E2E_FEATURES_URL; port 8001 of this machine unless set.",
)
@click.option(
    "--model",
    "models",
    metavar="NAME=URL",
    multiple=True,
    callback=_models,
    help="May be given again. Or MLPLATFORM_E2E_MODELS, with commas; the four at 8010 to 8013 unless set.",
)
@click.option(
    "--series-id",
    default=_default("series_id", "argo_e2e_pipeline"),
    help="Or MLPLATFORM_E2E_SERIES_ID; argo_e2e_pipeline unless set.",
)
@click.option(
    "--key",
    default=lambda: Settings.load().job.get("key") or uuid.uuid4().hex,
    callback=_key,
    help="What this run is known by, so that a job that is tried again learns the same observation once:"
    " Argo's {{workflow.scheduledTime}}, or the name of the Kubernetes job. Or MLPLATFORM_E2E_KEY; a new one"
    " unless set.",
)
@click.option(
    "--token",
    default=lambda: Settings.load().api_token,
    callback=_token,
    help="Bearer token. Better MLPLATFORM_TOKEN, which no list of processes shows.",
)
@click.option(
    "--steps",
    type=click.IntRange(1, 100),
    default=_default("steps", "5"),
    help="How far to forecast. Or MLPLATFORM_E2E_STEPS; 5 unless set.",
)
def e2e(
    ingestion_url: str,
    features_url: str,
    models: dict[str, str],
    series_id: str,
    key: str,
    token: str | None,
    steps: int,
) -> None:
    """Fetch an observation, make its features, let all models predict and learn it, and forecast.

    Ends with 0 if every model did, also if there are no more observations; else with 1, while the other
    models have learned it. An observation of ingestion is learned once, whatever is run again.

    \b
    Examples:
      mlplatform e2e
      mlplatform e2e --model knn_regressor=http://127.0.0.1:8012 --key 2026-01-31T12:00
    """
    job = Job(ingestion_url, features_url, models, series_id, key, steps)
    try:
        asyncio.run(_run(job, token))
    except Exhausted:
        _log("INFO: No more observations available - stream exhausted")
    except CallFailed as error:
        _log(f"ERROR: {error}")
        _log("=== E2E PIPELINE FAILED ===")
        sys.exit(1)


async def _run(job: Job, token: str | None) -> None:
    """One observation through all services.

    Raises:
        Exhausted: there is no observation to learn.
        CallFailed: there are no features for the models, or some models failed and the others have learned.
    """
    import httpx

    _log("=== E2E PIPELINE START ===")
    _log(f"run {job.key}: series {job.series_id}, models {', '.join(job.models)}")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with httpx.AsyncClient(headers=headers, timeout=SECONDS) as client:
        services = _Services(client, job)
        _log("[1/4] Fetching an observation")
        observation = await services.next()
        _log("  " + ", ".join(f"{name}: {value}" for name, value in observation.items()))
        # The same in every run, also after a reset of the stream: who has learned it knows it again.
        observation_id = f"{observation.get('series_id', 'replay')}:{observation['observation_id']}"

        _log("[2/4] Extracting features")
        featured = await services.add(observation["target"], observation_id)
        for name, value in featured["features"].items():
            _log(f"  {name}: {value}")
        _log(f"  target: {featured['target']}, lags known: {featured.get('available_lags')}")

        _log(f"[3/4] Predicting and learning with {len(job.models)} models")
        failed = await _each(job.models, lambda name: services.learn(name, featured, observation_id))

        _log("[4/4] Retrieving metrics and forecasts")
        learned = [name for name in job.models if name not in failed]
        failed += await _each(learned, services.look)
        if failed:
            raise CallFailed(f"{', '.join(failed)} failed; {len(learned)} models have learned it")
        _log("=== E2E PIPELINE COMPLETE ===")


async def _each(names: Iterable[str], ask: Callable[[str], Awaitable[str]]) -> list[str]:
    """Asks all at once; those that failed, which hold up none of the others."""

    async def one(name: str) -> bool:
        began, failed = time.monotonic(), True
        try:
            said = await ask(name)
            failed = False
        except CallFailed as error:
            said = f"ERROR: {error}"
        except (LookupError, TypeError, ValueError) as error:
            said = f"ERROR: the answer is not as it should be: {error!r}"
        _log(f"  {name}: {said} ({1000 * (time.monotonic() - began):.0f} ms)")
        return failed

    asked = list(names)
    outcomes = await asyncio.gather(*map(one, asked))
    return [name for name, failed in zip(asked, outcomes, strict=True) if failed]


class _Services:
    """The services as one run calls them."""

    def __init__(self, client: httpx.AsyncClient, job: Job) -> None:
        self._client = client
        self._job = job
        self._run = {"Idempotency-Key": job.key}

    async def next(self) -> Reply:
        reply = await self._ask("GET", f"{self._job.ingestion}/next", headers=self._run)
        if reply is None:
            raise Exhausted
        return reply

    async def add(self, value: Any, observation_id: str) -> Reply:
        body = {"series_id": self._job.series_id, "value": value, "observation_id": observation_id}
        return await self._told("POST", f"{self._job.features}/add", json=body, headers=self._run)

    async def learn(self, name: str, featured: Reply, observation_id: str) -> str:
        body = {
            "features": featured["features"],
            "target": featured["target"],
            "series_id": self._job.series_id,
            "observation_id": observation_id,
        }
        url = f"{self._job.models[name]}/predict_learn"
        reply = await self._told("POST", url, json=body, headers=self._run)
        return f"predicted {reply['prediction']}, actual {featured['target']}"

    async def look(self, name: str) -> str:
        url = self._job.models[name]
        told = await self._told("GET", f"{url}/model_metrics")
        metrics = Reply(told[self._job.series_id])
        errors = [f"{each} {metrics.get(each)}" for each in ("mae_20", "rmse_20", "mape_20")]
        # Without features, the models go on from what they have just learned.
        body = {"series_id": self._job.series_id}
        ahead = await self._told("POST", f"{url}/predict_many", json=body, params={"steps": self._job.steps})
        forecast = ", ".join(str(step["value"]) for step in ahead["forecast"])
        return f"{metrics['count']} learned, {', '.join(errors)}, forecast {forecast}"

    async def _told(self, method: str, url: str, **request: Any) -> Reply:
        reply = await self._ask(method, url, **request)
        if reply is None:
            raise CallFailed(f"{_place(method, url)} answered nothing")
        return reply

    async def _ask(self, method: str, url: str, **request: Any) -> Reply | None:
        """The JSON object that is answered; None if the answer is that there is nothing.

        A call may be made again, since each carries an id by which it has its effect once.

        Raises:
            CallFailed: another answer came, or none in time.
        """
        import httpx

        place, trouble, pause = _place(method, url), "", FIRST_PAUSE
        try:
            async with asyncio.timeout(SECONDS):
                while True:
                    try:
                        response = await self._client.request(method, url, **request)
                        if response.status_code not in PASSING:
                            return _read(place, response)
                        trouble = f", but {response.status_code}: {_detail(response)}"
                        pause = max(pause, _retry_after(response))
                    except httpx.TransportError as error:
                        trouble = f", but {type(error).__name__}: {error}"
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE)
        except TimeoutError:
            raise CallFailed(f"{place} gave no answer within {SECONDS:g} seconds{trouble}") from None
        except httpx.RequestError as error:
            raise CallFailed(f"{place} answered what cannot be read: {error}") from None


def _read(place: str, response: httpx.Response) -> Reply | None:
    if response.status_code == 204:
        return None
    if response.status_code != 200:
        raise CallFailed(f"{place} answered {response.status_code}: {_detail(response)}")
    try:
        reply = json.loads(response.content, parse_constant=_no_number)
    except ValueError:
        reply = None
    if not isinstance(reply, dict):
        raise CallFailed(f"{place} answered no JSON object: {_short(response.text)}")
    return Reply(reply)


def _no_number(name: str) -> NoReturn:
    """Python would read NaN and Infinity, for which JSON has no word, nor has the next service."""
    raise ValueError(name)


def _detail(response: httpx.Response) -> str:
    try:
        said = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        said = response.text
    return _short(str(said))


def _short(text: str) -> str:
    """On one line, as the log has it."""
    return " ".join(text.split())[:LONGEST_DETAIL] or "nothing"


def _retry_after(response: httpx.Response) -> float:
    given = response.headers.get("Retry-After", "")
    return float(given) if given.isdecimal() else 0.0


def _place(method: str, url: str) -> str:
    """What is asked, without a password that the address may have."""
    parts = urlsplit(url)
    return f"{method} {parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _log(line: str) -> None:
    # click flushes: a job's log is read while it runs.
    click.echo(f"{datetime.now(UTC).isoformat(timespec='milliseconds')} {line}")
