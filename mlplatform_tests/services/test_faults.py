"""Services that are killed, networks that fail and stores that are hard to reach: every promise holds.

G1 to G4 over HTTP, decided from what the clients have written down.
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import httpx
import pytest

from mlplatform.domain.families import DEFAULT_LAGS
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import LOG
from mlplatform.io.online_store import OnlineStore
from mlplatform.io.prediction_table import PREDICTIONS
from mlplatform.io.tables import Table
from mlplatform.local.stack import RunningStack
from mlplatform.services.models import SEED_NAMES
from mlplatform.settings import Settings
from mlplatform_tests.cli.serving import on_stack, serving
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services import histories
from mlplatform_tests.services.clients import Clients, Maker
from mlplatform_tests.services.histories import Observation, Taken
from mlplatform_tests.services.processes import process
from mlplatform_tests.services.proxy import Harm, Proxy

MODELS = ("linear_regression", "bagging_regressor", "knn_regressor", "amf_regressor")
MODEL_SERIES = ("s0", "s1")
# So many that some have their last observation while a store is away.
FEATURE_SERIES = tuple(f"s{each}" for each in range(30))
KILLS = 3
SECONDS = 60
# Between clients and service.
NETWORK = Harm(delay=0.01, drop=0.005, reset=0.01)
# Between service and stores: one after the other, since what is dropped keeps a store's client waiting.
RESETS, DROPS = Harm(delay=0.01, reset=0.1), Harm(delay=0.01, drop=0.1)
# Too large for any series, whatever it had before.
POISON = 1e300
Histories = dict[tuple[str, str], list[Taken]]


@pytest.fixture
def seed() -> int:
    """Shown with a failure, as the arguments of a test are."""
    return random.randrange(2**32)


@pytest.fixture
def settings(stack: RunningStack, tmp_path: Path) -> Settings:
    own = on_stack(Settings(stack.variables), tmp_path, uuid.uuid4().hex)
    return Settings({**own, "MLPLATFORM_SNAPSHOT_KEY": "key", "MLPLATFORM_FLUSH_SECONDS": "1"})


def for_models(chance: random.Random, name: str) -> Observation:
    """One in twenty would spoil a model."""
    lags = [round(chance.uniform(1000, 2000), 3) for _ in range(chance.randrange(DEFAULT_LAGS + 1))]
    body = {
        "series_id": chance.choice(MODEL_SERIES),
        "observation_id": name,
        "features": {f"in_{lag}": value for lag, value in enumerate(lags, 1)},
        "target": POISON if chance.random() < 0.05 else round(chance.uniform(1000, 2000), 3),
    }
    return Observation(f"/models/{chance.choice(MODELS)}/predict_learn", body)


def for_features(chance: random.Random, name: str) -> Observation:
    value = POISON if chance.random() < 0.05 else float(chance.randrange(1000, 2000))
    body = {"series_id": chance.choice(FEATURE_SERIES), "observation_id": name, "value": value}
    return Observation("/add", body)


def test_models_keep_their_promises_whatever_is_killed(settings: Settings, seed: int) -> None:
    taken = survived(settings, seed, for_models, counted_by_models, "models")
    assert {route for route, _ in taken} == {f"/models/{name}/predict_learn" for name in MODELS}
    table_has(settings, taken)


def test_features_keep_their_promises_whatever_is_killed(settings: Settings, seed: int) -> None:
    taken = survived(settings, seed, for_features, counted_by_features, "features")
    log_has(settings, taken)


def test_stores_that_are_hard_to_reach_cost_nobody_an_answer(settings: Settings, seed: int) -> None:
    """G8: what was answered meanwhile gets there when they are well again."""
    with ExitStack() as opened:
        proxies = [Proxy(url, seed) for url in (str(settings.s3.endpoint_url), settings.redis_url)]
        for each in proxies:
            opened.callback(each.end)
        s3, redis = (each.url for each in proxies)
        hurt = {
            **settings.variables,
            "MLPLATFORM_S3_ENDPOINT_URL": s3,
            "MLPLATFORM_REDIS_URL": redis,
            "MLPLATFORM_FLUSH_SECONDS": "0.2",
        }
        models, features = opened.enter_context(serving(hurt, ",".join(MODELS), "features")).values()
        clients = [
            Clients(url, make, seed, count=8, pause=0.1)
            for url, make in ((models, for_models), (features, for_features))
        ]
        with clients[0].sending(), clients[1].sending():
            harm(proxies, RESETS, lambda proxy: proxy.resets > 2)
            for each in clients:
                each.wait_for(50)
            harm(proxies, DROPS, lambda proxy: proxy.dropped > 0)
        for each in clients:
            each.clear_up()
        counts = {}
        for url, counted in ((models, counted_by_models), (features, counted_by_features)):
            with httpx.Client(base_url=url, trust_env=False) as http:
                assert eventually(lambda http=http: not http.get("/health").json()["degraded"], SECONDS)
                counts |= counted(http)
    attempts = [attempt for each in clients for attempt in each.attempts]
    taken = histories.check(attempts, counts, REPLAYS)
    table_has(settings, {key: each for key, each in taken.items() if key[0] != "/add"})
    log_has(settings, {key: each for key, each in taken.items() if key[0] == "/add"})


def harm(proxies: Sequence[Proxy], harm: Harm, enough: Callable[[Proxy], bool]) -> None:
    with proxies[0].harming(harm), proxies[1].harming(harm):
        assert eventually(lambda: all(map(enough, proxies)), SECONDS)


def survived(
    settings: Settings,
    seed: int,
    make: Maker,
    counted: Callable[[httpx.Client], dict[tuple[str, str], int]],
    *arguments: str,
) -> Histories:
    """What 32 clients were told of a service that is killed again and again, behind a network that fails."""
    chance = random.Random(seed)
    with ExitStack() as opened:
        service = opened.enter_context(process(settings, *arguments))
        proxy = Proxy(service.address, seed)
        opened.callback(proxy.end)
        clients = Clients(proxy.url, make, seed)
        with proxy.harming(NETWORK), clients.sending():
            for _ in range(KILLS):
                clients.wait_for(chance.randrange(30, 150))
                service.kill()
                service.start()
                service.wait_until_ready()
            clients.wait_for(100)
        clients.clear_up()
        assert proxy.dropped
        assert proxy.resets
        http = opened.enter_context(httpx.Client(base_url=service.address, trust_env=False))
        counts = counted(http)
        assert service.end() == 0
    assert {None, 200, 422} <= {attempt.status for attempt in clients.attempts}
    return histories.check(clients.attempts, counts, REPLAYS)


REPLAYS = {"/add": histories.features} | {
    f"/models/{name}/predict_learn": histories.predictions(load_recipes()[SEED_NAMES[name]])
    for name in MODELS
}


def counted_by_models(http: httpx.Client) -> dict[tuple[str, str], int]:
    counts = {}
    for name in MODELS:
        told = http.get(f"/models/{name}/model_metrics").raise_for_status().json()
        for series_id, metrics in told.items():
            if series_id not in ("model_info", "message"):
                counts[f"/models/{name}/predict_learn", series_id] = metrics["count"]
    return counts


def counted_by_features(http: httpx.Client) -> dict[tuple[str, str], int]:
    ends = {series_id: http.get(f"/series/{series_id}") for series_id in FEATURE_SERIES}
    return {
        ("/add", series_id): end.raise_for_status().json()["offset"] + 1
        for series_id, end in ends.items()
        if end.status_code != 404
    }


def table_has(settings: Settings, taken: Histories) -> None:
    """The table of predictions is what the clients were told."""
    rows = Table(PREDICTIONS, ObjectStore(settings.s3)).read().to_pylist()
    for name in MODELS:
        route, recipe = f"/models/{name}/predict_learn", SEED_NAMES[name]
        own = sorted(
            (row for row in rows if row["model"] == recipe), key=lambda row: (row["series_id"], row["offset"])
        )
        told = [each.answer for series_id in MODEL_SERIES for each in taken.get((route, series_id), [])]
        assert [
            {field: row[field] for field in answer} for row, answer in zip(own, told, strict=True)
        ] == told


def log_has(settings: Settings, taken: Histories) -> None:
    """Log and Redis are what the clients were told (G7)."""
    rows = Table(LOG, ObjectStore(settings.s3)).read(list(LOG.columns)).to_pylist()
    assert sorted(row["position"] for row in rows) == list(range(len(rows)))
    redis = OnlineStore(settings.redis_url, settings.s3.prefix)
    assert len(rows) == sum(map(len, taken.values()))
    for (_, series_id), told in taken.items():
        own = sorted((row for row in rows if row["series_id"] == series_id), key=lambda row: row["offset"])
        assert [(row["observation_id"], row["value"]) for row in own] == [
            (each.observation.body["observation_id"], each.observation.body["value"]) for each in told
        ]
        assert all(row["event_time"] < after["event_time"] for row, after in pairwise(own))
        newest = [row["value"] for row in own][::-1][:DEFAULT_LAGS]
        assert redis.read(series_id) == (len(own) - 1, newest)
