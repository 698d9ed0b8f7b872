"""The control plane: calls over a long history, its start, and jobs against `dagster job launch` by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median, quantiles
from tempfile import mkdtemp
from typing import Any

import httpx
from sqlalchemy import insert

from benchmarks.dagster_dev import REPOSITORY
from benchmarks.feature_services import Served, _process
from benchmarks.measure import Row, Session, say
from benchmarks.model_services import load
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import tables
from mlplatform.io.control_plane.database import Database
from mlplatform.local import launcher, ports

HISTORY = 10_000
RATE, CALLS = 100, 1000
P99_GOAL_SECONDS, LIST_GOAL_SECONDS = 0.01, 0.05
START_GOAL_SECONDS, MEMORY_GOAL_BYTES = 2.0, 120 * 1024**2
ROUNDS, FULL_ROUNDS = 3, 7
WORKERS = (1, 2, 4)
JOBS, FULL_JOBS = 20, 100
WAIT_SECONDS = 300
JOB = {"name": "bench", "command": ["true"]}

# What a person would write who has Dagster alone.
BY_HAND = """
import subprocess
import dagster as dg

@dg.op(config_schema={"command": [str]})
def command(context):
    subprocess.run(context.op_config["command"], check=True)

@dg.job(executor_def=dg.in_process_executor)
def by_hand():
    command()

defs = dg.Definitions(jobs=[by_hand])
"""


def measure(session: Session) -> Iterator[Row]:
    rounds = FULL_ROUNDS if session.full else ROUNDS
    yield from _calls(session, rounds)
    yield from _first_line(session, rounds)
    yield from _jobs_a_minute(session)


def _calls(session: Session, rounds: int) -> Iterator[Row]:
    schema = f"calls_{uuid.uuid4().hex[:8]}"
    some = _history(Database(session.settings.database_url, schema))
    starts, sizes = [], []
    calls = {
        "read a job": ("GET", f"/api/v1/jobs/{some}", ""),
        "make a job": ("POST", "/api/v1/jobs", json.dumps(JOB)),
        "register a worker": ("POST", "/api/v1/workers", json.dumps({"type": "bench"})),
    }
    slowest: dict[str, list[float]] = {name: [] for name in calls}
    lists: dict[str, list[float]] = {"the first page": [], "of one status": [], "the last page": []}
    for _ in range(rounds):
        with _api(session, schema) as served:
            starts.append(served.seconds)
            for name, (method, path, body) in calls.items():
                asked = load(served.port, path, [body] * CALLS, 10, RATE, method)
                slowest[name].append(quantiles(asked["taken"], n=100)[98])
            sizes.append(served.bytes)
            client = httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False)
            lists["the first page"].append(_timed(client, "/api/v1/jobs"))
            lists["of one status"].append(_timed(client, "/api/v1/jobs?status=Failed"))
            last = "/api/v1/jobs?limit=100"
            for _ in range(HISTORY // 100 - 1):
                link = client.get(last).headers["Link"]
                last = link[1 : link.index(">")]
            lists["the last page"].append(_timed(client, last))
    for name, found in slowest.items():
        yield Row(f"{name} at {RATE} a second: p99", median(found), goal=P99_GOAL_SECONDS, goal_of="ours")
    for name, found in lists.items():
        what = f"a list of {HISTORY:,} jobs, {name}"
        yield Row(what, median(found), goal=LIST_GOAL_SECONDS, goal_of="ours")
    yield Row("start to /ready", median(starts), goal=START_GOAL_SECONDS, goal_of="ours")
    yield Row("memory after all that", median(sizes), unit="bytes", goal=MEMORY_GOAL_BYTES, goal_of="ours")


def _history(database: Database) -> uuid.UUID:
    """Jobs that have ended, a second apart; returns one of them."""
    database.migrate()
    first = datetime.now(UTC) - timedelta(seconds=HISTORY)
    ids = [uuid.uuid4() for _ in range(HISTORY)]
    ends = (State.SUCCESS, State.SUCCESS, State.FAILED, State.CANCELLED)
    with database.transaction() as connection:
        connection.execute(
            insert(tables.jobs),
            [
                {
                    "id": id_,
                    "name": f"job {number}",
                    "status": ends[number % len(ends)],
                    "created_at": first + timedelta(seconds=number),
                }
                for number, id_ in enumerate(ids)
            ],
        )
    database.close()
    return ids[HISTORY // 2]


def _timed(client: httpx.Client, path: str) -> float:
    taken = []
    for _ in range(50):
        began = time.perf_counter()
        client.get(path).raise_for_status()
        taken.append(time.perf_counter() - began)
    return median(taken)


@contextmanager
def _api(session: Session, schema: str, dagit: str = "http://127.0.0.1:9") -> Iterator[Served]:
    port = ports.choose(())
    command = [sys.executable, "-m", "mlplatform.cli", "serve", "api", "--port", str(port)]
    variables = {"MLPLATFORM_CONTROL_PLANE_SCHEMA": schema, "MLPLATFORM_DAGIT_URL": dagit}
    with _process(session, command, {**session.environment, **variables}, port, "/ready") as served:
        yield served


# Jobs, against Dagster by hand


def _first_line(session: Session, rounds: int) -> Iterator[Row]:
    """From asking to the command's first act, which tells its time."""
    ours, by_hand = [], []
    schema = f"first_{uuid.uuid4().hex[:8]}"
    with _platform(session, schema, workers=1) as (client, home):
        for _ in range(rounds):
            ours.append(_begun(home, lambda command: _post(client, command)))
            by_hand.append(_begun(home, lambda command: _by_hand(home, command)))
    say(f"first line: {ours}; by hand: {by_hand}")
    yield Row(
        "from POST /jobs to the first line, against `dagster job launch`", median(ours), median(by_hand)
    )


def _begun(home: Path, ask: Callable[[list[str]], object]) -> float:
    told = home / uuid.uuid4().hex
    began = time.time()
    ask(["sh", "-c", f"date +%s.%N > {told}.new; mv {told}.new {told}"])
    while not told.exists():
        if time.time() - began > WAIT_SECONDS:
            raise RuntimeError(f"nothing has begun; see the logs in {home}")
        time.sleep(0.01)
    return float(told.read_text()) - began


def _post(client: httpx.Client, command: list[str]) -> str:
    return (
        client.post("/api/v1/jobs", json={"name": "bench", "command": command})
        .raise_for_status()
        .json()["id"]
    )


def _by_hand(home: Path, command: list[str]) -> None:
    config = {"ops": {"command": {"config": {"command": command}}}}
    subprocess.run(
        [
            *(sys.executable, "-m", "dagster", "job", "launch", "-w", "workspace.yaml"),
            *("-l", "by_hand", "-j", "by_hand", "--config-json", json.dumps(config)),
        ],
        cwd=home,
        env={**os.environ, "DAGSTER_HOME": str(home)},
        check=True,
        capture_output=True,
    )


def _jobs_a_minute(session: Session) -> Iterator[Row]:
    count = FULL_JOBS if session.full else JOBS
    for workers in WORKERS:
        schema = f"workers_{workers}_{uuid.uuid4().hex[:8]}"
        with _platform(session, schema, workers) as (client, _):
            began = time.perf_counter()
            waiting = {_post(client, ["true"]) for _ in range(count)}
            while waiting:
                ended = {job["id"] for job in client.get("/api/v1/jobs?status=Success&limit=1000").json()}
                waiting -= ended
                if time.perf_counter() - began > WAIT_SECONDS:
                    raise RuntimeError(f"{len(waiting)} jobs have not ended")
                time.sleep(0.1)
            each = (time.perf_counter() - began) / count
        say(f"{workers} workers: {60 / each:.0f} jobs a minute")
        yield Row(f"a job, {workers} workers, {count} at once", each)


@contextmanager
def _platform(session: Session, schema: str, workers: int) -> Iterator[tuple[httpx.Client, Path]]:
    """Dagit with its daemon, the API, and workers of one slot each."""
    home, dagit = Path(mkdtemp(dir=session.directory)), ports.choose(())
    configuration = (REPOSITORY / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text(configuration.replace(".mlplatform/dagster", str(home)))
    (home / "by_hand.py").write_text(BY_HAND)
    (home / "workspace.yaml").write_text(
        "load_from:\n"
        "  - python_module: {module_name: mlplatform.control_plane_definitions,"
        " location_name: mlplatform.control_plane_definitions}\n"
        "  - python_file: {relative_path: by_hand.py, location_name: by_hand}\n"
    )
    Database(session.settings.database_url, schema).migrate()
    environment = {
        **session.environment,
        "DAGSTER_HOME": str(home),
        "MLPLATFORM_CONTROL_PLANE_SCHEMA": schema,
    }
    children: list[subprocess.Popen[bytes]] = []
    try:
        dagster = ["dagster", "dev", "-w", "workspace.yaml", "-h", "127.0.0.1", "-p", str(dagit)]
        children.append(_child(home, "dagit", dagster, environment))
        for number in range(workers):
            start = ["mlplatform.cli", "worker", "start", "--name", f"w{number}", "--slots", "1"]
            children.append(_child(home, f"worker{number}", start, environment))
        with _api(session, schema, f"http://127.0.0.1:{dagit}") as served:
            client = httpx.Client(base_url=f"http://127.0.0.1:{served.port}", trust_env=False, timeout=30)
            # The first one waits until everything has started.
            first = _post(client, ["true"])
            _until(lambda: client.get(f"/api/v1/jobs/{first}").json()["status"] == "Success", home)
            _until(lambda: len(_listening(client)) == workers, home)
            yield client, home
    finally:
        for child in reversed(children):
            child.send_signal(signal.SIGINT)
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.wait(20)
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
        shutil.rmtree(home, ignore_errors=True)


def _listening(client: httpx.Client) -> list[Any]:
    return [worker for worker in client.get("/api/v1/workers").json() if worker["listens"]]


def _until(reached: Callable[[], bool], home: Path) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not reached():
        if time.monotonic() > deadline:
            logs = "\n".join(path.read_text()[-1000:] for path in home.glob("*.log"))
            raise RuntimeError(f"the platform does not start:\n{logs}")
        time.sleep(0.1)


def _child(
    home: Path, name: str, module: Sequence[str], environment: dict[str, str]
) -> subprocess.Popen[bytes]:
    with_parent = [sys.executable, "-I", "-S", launcher.__file__, "--parent", str(os.getpid())]
    with open(home / f"{name}.log", "wb") as output:
        return subprocess.Popen(
            [*with_parent, "--signal", "SIGTERM", "--", sys.executable, "-m", *module],
            env=environment,
            cwd=home,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
