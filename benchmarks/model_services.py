"""Requests to a model service, answered once they are on the disk, against the seed's, which forgets all."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median, quantiles

import httpx

from benchmarks.data import SERIES
from benchmarks.measure import Row, Session, say
from mlplatform.local import ports

RETAIL = SERIES.with_name("us_retail_employment_monthly.csv")
MONTHS, LAGS = 744, 15
SEED_APP = "benchmarks.seed_model_service:app"
CLIENTS = 32
ROUNDS = 3
# How many times as many requests a second as the seed's.
GOALS = {
    "linear_regression": {1: 1.0, CLIENTS: 1.2},
    "bagging_regressor": {1: 1.0, CLIENTS: 1.2},
    "knn_regressor": {1: 3.0, CLIENTS: 2.5},
    "amf_regressor": {1: 1.5, CLIENTS: 1.0},
}
P99_GOAL_SECONDS = 0.01


def measure(session: Session) -> Iterator[Row]:
    bodies = list(observations())
    for name, goals in GOALS.items():
        for clients, goal in goals.items():
            ways: dict[str, list[dict]] = {"ours": [], "seed": []}
            for _ in range(ROUNDS if session.full else 1):
                for way, measured in ways.items():
                    with service(session, way, name) as port:
                        measured.append(load(port, "/predict_learn", bodies, clients))
            each = {way: median(one["seconds"] / len(bodies) for one in found) for way, found in ways.items()}
            for way, found in ways.items():
                p99 = median(quantiles(one["taken"], n=100)[98] for one in found)
                rate = 1 / each[way]
                say(f"{name}, {clients} clients, {way}: {rate:,.0f} a second, p99 {1e3 * p99:.1f} ms")
            yield Row(
                f"predict_learn of {name}, {clients} clients: time a request",
                each["ours"],
                each["seed"],
                goal=1 / goal,
            )
        with service(session, "ours", name) as port:
            half = 0.5 / each["ours"]
            found = load(port, "/predict_learn", bodies, CLIENTS, rate=half)
            p99 = quantiles(found["taken"], n=100)[98]
            yield Row(f"p99 of {name} at half load", p99, goal=P99_GOAL_SECONDS, goal_of="ours")
    with (
        service(session, "ours", "linear_regression") as ours,
        service(session, "seed", "linear_regression") as seed,
    ):
        load(ours, "/predict_learn", bodies, 1)
        load(seed, "/predict_learn", bodies, 1)
        pure = [json.dumps({"features": json.loads(body)["features"]}) for body in bodies]
        rates = {
            way: load(port, "/predict", pure, CLIENTS)["seconds"] / len(pure)
            for way, port in (("ours", ours), ("seed", seed))
        }
        yield Row("predict of linear_regression, 32 clients: time a request", rates["ours"], rates["seed"])


def observations() -> Iterator[str]:
    """The bodies that a seed's client sends for the 744 months."""
    with open(RETAIL, newline="") as file:
        values = [float(row["value"]) for row in csv.DictReader(file)][-MONTHS:]
    for at, target in enumerate(values):
        earlier = values[max(0, at - LAGS) : at][::-1]
        features = {f"in_{lag + 1}": (earlier[lag] if lag < len(earlier) else 0.0) for lag in range(LAGS)}
        yield json.dumps({"features": features, "target": target})


@contextmanager
def service(session: Session, way: str, name: str) -> Iterator[int]:
    """One that has learned nothing; its port."""
    port = ports.choose(())
    environment = {
        **session.environment,
        "MODEL_NAME": name,
        "MLPLATFORM_DATA_DIRECTORY": str(session.directory / f"service-{port}"),
        "MLPLATFORM_S3_PREFIX": f"service-{port}",
        **embedded(session),
    }
    command = {
        "ours": ["-m", "mlplatform.cli", "serve", "models", "--port", str(port)],
        "seed": ["-m", "uvicorn", SEED_APP, "--port", str(port)],
    }[way]
    with open(session.directory / f"{way}.log", "ab") as log:
        process = subprocess.Popen([sys.executable, *command], env=environment, stdout=log, stderr=log)
    try:
        wait(port, process)
        yield port
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(30)


def embedded(session: Session) -> dict[str, str]:
    """The stack's servers by their variables, since each service has a data directory of its own."""
    settings = session.settings
    return {
        "MLPLATFORM_S3_ENDPOINT_URL": settings.s3.endpoint_url or "",
        "AWS_ACCESS_KEY_ID": settings.s3.access_key_id,
        "AWS_SECRET_ACCESS_KEY": settings.s3.secret_access_key,
        "MLPLATFORM_S3_BUCKET": settings.s3.bucket,
        "MLPLATFORM_REDIS_URL": settings.redis_url,
    }


def wait(port: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                return
        except httpx.TransportError:
            time.sleep(0.1)
    raise RuntimeError(f"the service on port {port} does not answer")


def load(
    port: int, path: str, bodies: list[str], clients: int, rate: float | None = None, method: str = "POST"
) -> dict:
    asked = {
        "method": method,
        "port": port,
        "path": path,
        "bodies": bodies,
        "connections": clients,
        "rate": rate,
    }
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.http_load"],
        input=json.dumps(asked),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        env=dict(os.environ),
    )
    result = json.loads(done.stdout)
    if failed := result["failed"]:
        # The seed's answers some concurrent requests with an error: it has no lock around its model.
        say(f"{len(failed)} of {len(bodies)} requests failed, the first with {failed[0]!r}")
    return result
