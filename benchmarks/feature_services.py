"""Observations and features over HTTP against the seed's service and Feast; what each service takes to start.

The rows against Feast need an interpreter that has it, named by FEAST_PYTHON; it is none of our dependencies.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles
from tempfile import mkdtemp

import httpx

from benchmarks.measure import Row, Session, say
from benchmarks.model_services import embedded, load
from mlplatform.io.online_store import OnlineStore
from mlplatform.local import ports

CLIENTS = 32
ADDED, READ, PUSHED = 2000, 2000, 200
SERIES, LAGS = 10, 15
ROUNDS, FULL_ROUNDS = 3, 7
# How many times as many observations a second as the seed's.
ADD_GOALS = {1: 1.0, CLIENTS: 1.2}
P99_GOAL_SECONDS = 0.01
WRITES_GOAL = 10
START_GOAL_SECONDS = 2.0
MEMORY_GOAL_BYTES = 120 * 1024**2
IMPORTS_GOAL = 1.15
SHOWN_AFTER = 10_000
HTTP = "fastapi, httptools, prometheus_client, uvicorn, uvloop"
# What each service cannot do without; `models` serves linear_regression.
IMPORTS = {
    "ingestion": HTTP,
    "features": f"{HTTP}, deltalake, obstore.store, redis",
    "models": f"{HTTP}, deltalake, obstore.store, river.drift, river.linear_model",
}


def measure(session: Session) -> Iterator[Row]:
    rounds = FULL_ROUNDS if session.full else ROUNDS
    yield from _adding(session, rounds)
    yield from _against_feast(session, rounds)
    yield from _starting(session, rounds)


# Observations, against the seed's service


def _adding(session: Session, rounds: int) -> Iterator[Row]:
    bodies = _observations(ADDED)
    first: dict[str, list[float]] = {"ours": [], "seed": []}
    most = 0.0
    for clients, goal in ADD_GOALS.items():
        found: dict[str, list[dict]] = {"ours": [], "seed": []}
        for _ in range(rounds):
            for way, measured in found.items():
                with _service(session, way) as served:
                    first[way].append(_first(served))
                    measured.append(load(served.port, "/add", bodies, clients))
        each = {way: median(one["seconds"] / ADDED for one in taken) for way, taken in found.items()}
        for way, taken in found.items():
            p99 = median(quantiles(one["taken"], n=100)[98] for one in taken)
            say(f"add, {clients} clients, {way}: {1 / each[way]:,.0f} a second, p99 {1e3 * p99:.1f} ms")
        yield Row(f"add, {clients} clients: time a request", each["ours"], each["seed"], goal=1 / goal)
        most = max(most, 1 / each["ours"])
    for way, taken in first.items():
        say(f"add, the first of a series, {way}: {1e3 * median(taken):.1f} ms")
    with _service(session, "ours") as served:
        _first(served)
        half = load(served.port, "/add", bodies, CLIENTS, rate=most / 2)
        p99 = quantiles(half["taken"], n=100)[98]
        yield Row("p99 of add at half load", p99, goal=P99_GOAL_SECONDS, goal_of="ours")


def _first(served: Served) -> float:
    """Begins the series, and returns the seconds for each: it is looked up who owns it."""
    return _each(load(served.port, "/add", _observations(SERIES), 1))


def _observations(count: int) -> list[str]:
    """As the seed's clients send them."""
    return [
        json.dumps({"series_id": f"series-{number % SERIES}", "value": 1000.0 + number % 97})
        for number in range(count)
    ]


# Features, against Feast


def _against_feast(session: Session, rounds: int) -> Iterator[Row]:
    python = os.environ.get("FEAST_PYTHON")
    if not python:
        say("the rows against Feast are left out: no FEAST_PYTHON. `python -m venv feast` and")
        say("`feast/bin/pip install feast==0.67.0` make one: FEAST_PYTHON=feast/bin/python")
        return
    online = OnlineStore(session.settings.redis_url, "benchmark")
    numbers = itertools.count()
    found: dict[str, list[float]] = {}

    def keep(name: str, seconds: float) -> None:
        found.setdefault(name, []).append(seconds)

    for _ in range(rounds):
        with _service(session, "ours") as served:
            _first(served)
            keep("add over HTTP", _each(load(served.port, "/add", _observations(PUSHED), 1)))
            for clients in (1, CLIENTS):
                asked = load(served.port, "/features/series-1", [""] * READ, clients, method="GET")
                keep(f"features over HTTP, {clients} clients", _each(asked))
        keep("push", _median(lambda: _pushed(online, next(numbers)), READ))
        keep("read", _median(lambda: _read(online), READ))
        with _feast(session, python) as feast:
            keep("Feast's push", feast.push)
            keep("Feast's read", feast.read)
            # With more clients, its SQLite refuses some.
            keep("Feast's push over HTTP", _each(load(feast.port, "/push", feast.pushes, 1)))
            for clients in (1, CLIENTS):
                asked = load(feast.port, "/get-online-features", feast.questions, clients)
                keep(f"Feast's features over HTTP, {clients} clients", _each(asked))
    for name, each in found.items():
        say(f"{name}: {', '.join(f'{1e3 * one:.3g}' for one in each)} ms")
    middle = {name: median(each) for name, each in found.items()}
    yield Row(
        "a durable add over HTTP, against Feast's /push",
        middle["add over HTTP"],
        middle["Feast's push over HTTP"],
        goal=1 / WRITES_GOAL,
    )
    yield Row(
        "a push to Redis, against Feast's in its process",
        middle["push"],
        middle["Feast's push"],
        goal=1 / WRITES_GOAL,
    )
    yield Row("a durable add over HTTP, against the same", middle["add over HTTP"], middle["Feast's push"])
    yield Row(
        "a read from Redis, against Feast's in its process", middle["read"], middle["Feast's read"], goal=1
    )
    for clients in (1, CLIENTS):
        name = f"features over HTTP, {clients} clients"
        yield Row(f"{name}, against Feast's", middle[name], middle[f"Feast's {name}"], goal=1)


def _pushed(online: OnlineStore, number: int) -> None:
    online.push(f"series-{number % SERIES}", number // SERIES, float(number), LAGS)


def _each(loaded: dict) -> float:
    """Seconds a request."""
    return loaded["seconds"] / len(loaded["taken"])


def _median(act: Callable[[], object], times: int) -> float:
    taken = []
    for _ in range(times):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return median(taken)


def _read(online: OnlineStore) -> dict[str, float]:
    found = online.read("series-1")
    assert found is not None
    return {f"in_{lag}": value for lag, value in enumerate(found[1], start=1)}


@dataclass(frozen=True)
class Feast:
    """One that serves; what it took in its own process, and what to ask it."""

    port: int
    push: float
    read: float

    @property
    def pushes(self) -> list[str]:
        names = [f"in_{lag}" for lag in range(1, LAGS + 1)]
        return [
            json.dumps(
                {
                    "push_source_name": "pushed",
                    "to": "online",
                    "df": {
                        "series_id": [f"series-{number % SERIES}"],
                        "event_timestamp": [f"2026-02-01T00:{number // 60:02d}:{number % 60:02d}Z"],
                        **{name: [float(number)] for name in names},
                    },
                }
            )
            for number in range(PUSHED)
        ]

    @property
    def questions(self) -> list[str]:
        features = [f"lags:in_{lag}" for lag in range(1, LAGS + 1)]
        return [json.dumps({"features": features, "entities": {"series_id": ["series-1"]}})] * READ


@contextmanager
def _feast(session: Session, python: str) -> Iterator[Feast]:
    directory = mkdtemp(dir=session.directory)
    environment = {**os.environ, "FEAST_USAGE": "False", "PYTHONWARNINGS": "ignore"}
    script = str(Path(__file__).with_name("feast_features.py"))
    done = subprocess.run(
        [python, script, directory], stdout=subprocess.PIPE, text=True, check=True, env=environment
    )
    own, port = json.loads(done.stdout.splitlines()[-1]), ports.choose(())
    command = [python, "-m", "feast.cli.cli", "-c", directory, "serve", "-p", str(port), "--no-access-log"]
    # Else it starts anew every thousand requests, and drops some.
    command += ["--max-requests", "0"]
    with _process(session, command, environment, port) as served:
        yield Feast(served.port, own["push"], own["read"])


# Starts


def _starting(session: Session, rounds: int) -> Iterator[Row]:
    for name, imports in IMPORTS.items():
        # The same each time: the first start makes what the others find.
        place = _place(session)
        ours, bare = [], []
        for _ in range(rounds):
            with _service(session, "ours", name, place) as served:
                ours.append((served.seconds, served.bytes))
            with _imported(imports) as served:
                bare.append((served.seconds, served.bytes))
        took, size = (median(each) for each in zip(*ours, strict=True))
        imported, least = (median(each) for each in zip(*bare, strict=True))
        start, memory = f"{name}, start to /ready against its imports", f"{name}, memory against its imports"
        if name == "models":
            yield Row(start, took, imported, goal=IMPORTS_GOAL)
            yield Row(memory, size, least, "bytes", IMPORTS_GOAL)
        else:
            yield Row(start, took, imported, goal=START_GOAL_SECONDS, goal_of="ours")
            yield Row(memory, size, least, "bytes", MEMORY_GOAL_BYTES, "ours")
    with _service(session, "ours", variables={"MLPLATFORM_FLUSH_SECONDS": "1"}) as served:
        load(served.port, "/add", _observations(SHOWN_AFTER), CLIENTS)
        _wait_until_flushed(served.port)
        yield Row(
            f"features, memory after {SHOWN_AFTER:,} observations",
            served.bytes,
            unit="bytes",
            goal=MEMORY_GOAL_BYTES,
            goal_of="ours",
        )


@dataclass(frozen=True)
class Served:
    """A process that is ready, after so many seconds."""

    process: subprocess.Popen[bytes]
    port: int
    seconds: float

    @property
    def bytes(self) -> float:
        """What it has in memory, the code of its libraries included."""
        [line] = [
            line
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
            if line.startswith("VmRSS:")
        ]
        return 1024.0 * int(line.split()[1])


@contextmanager
def _service(
    session: Session, way: str, name: str = "features", variables: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """One of ours, by default with nothing in it, or the seed's."""
    port = ports.choose(())
    command = {
        "ours": [sys.executable, "-m", "mlplatform.cli", "serve", name, "--port", str(port)],
        "seed": [
            sys.executable,
            *("-m", "uvicorn", "benchmarks.seed_feature_service:app", "--no-access-log"),
            *("--port", str(port)),
        ],
    }[way]
    environment = {**session.environment, **_place(session), **(variables or {})}
    environment["MODEL_NAME"] = "linear_regression"
    with _process(session, command, environment, port, "/ready" if way == "ours" else "/health") as served:
        yield served


def _place(session: Session) -> dict[str, str]:
    """A disk and a prefix that nobody else has."""
    directory = mkdtemp(dir=session.directory)
    return {
        "MLPLATFORM_DATA_DIRECTORY": directory,
        "MLPLATFORM_S3_PREFIX": Path(directory).name,
        **embedded(session),
    }


@contextmanager
def _imported(names: str) -> Iterator[Served]:
    """A process that has imported the modules, and does nothing."""
    began = time.perf_counter()
    code = f"import {names}; print(flush=True); input()"
    process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        yield Served(process, 0, time.perf_counter() - began)
        process.kill()


@contextmanager
def _process(
    session: Session, command: Sequence[str], environment: Mapping[str, str], port: int, path: str = "/health"
) -> Iterator[Served]:
    began = time.perf_counter()
    with open(session.directory / "services.log", "ab") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        while not _answers(f"http://127.0.0.1:{port}{path}"):
            if process.poll() is not None or time.perf_counter() > began + 60:
                said = (session.directory / "services.log").read_text()[-2000:]
                raise RuntimeError(f"{' '.join(command)} does not answer:\n{said}")
            time.sleep(0.01)
        yield Served(process, port, time.perf_counter() - began)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def _answers(url: str) -> bool:
    try:
        return httpx.get(url).is_success
    except httpx.TransportError:
        return False


def _wait_until_flushed(port: int) -> None:
    deadline = time.monotonic() + 60
    while "features_journal_entries 0.0" not in httpx.get(f"http://127.0.0.1:{port}/metrics").text:
        if time.monotonic() > deadline:
            raise RuntimeError("the feature service does not flush")
        time.sleep(0.1)
