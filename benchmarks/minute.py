"""The minute job in `dagster dev` against a job of one empty asset: time, event log, connections."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from statistics import median

import dagster as dg
import psycopg2

from benchmarks import dagster_dev
from benchmarks.data import SERIES
from benchmarks.measure import Row, Session, say
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.sources.push import Pushed, PushSource
from mlplatform_tests.graphs import Graph

TICKS = 3
GOAL_EVENT_BYTES = 6 * 1024
RETAIL = SERIES.with_name("us_retail_employment_monthly.csv")
EMPTY = """
import dagster as dg


@dg.asset
def empty() -> None: ...


job = dg.define_asset_job("empty_job", [empty])


@dg.sensor(job=job, minimum_interval_seconds=30, default_status=dg.DefaultSensorStatus.RUNNING)
def every_minute():
    return dg.RunRequest()


defs = dg.Definitions([empty], jobs=[job], sensors=[every_minute], executor=dg.in_process_executor)
"""


def measure(session: Session) -> Iterator[Row]:
    """Both run in their own process, as `dagster dev` launches them, with the in-process executor."""
    yield from _dagster_dev(session)
    yield _connections(session)


def _dagster_dev(session: Session) -> Iterator[Row]:
    _learn_everything(session)
    value = float(RETAIL.read_text().split()[-1].split(",")[1])

    def push() -> None:
        PushSource("pushed", ObjectStore(session.settings.s3)).push([Pushed("us_retail_employment", value)])

    empty = session.directory / "empty.py"
    empty.write_text(EMPTY)
    ours = _ticks(session, "ours", ["-m", "mlplatform.definitions"], push)
    other = _ticks(session, "empty", ["-f", str(empty)], lambda: None)
    yield Row("from the sensor's tick to SUCCESS, against one empty asset", ours[0], other[0], "s", 2.0)
    yield Row("event log of a tick, an asset", ours[1], other[1], "bytes", GOAL_EVENT_BYTES, goal_of="ours")


def _learn_everything(session: Session) -> None:
    """The shipped series up to its end, so that a tick brings one observation."""
    say("learning the shipped series (dagster job execute)")
    home = dagster_dev.make_home(session.directory / "home-before")
    command = [sys.executable, "-m", "dagster", "job", "execute"]
    command += ["-m", "mlplatform.definitions", "-j", "online_learning"]
    environment = {**session.environment, "DAGSTER_HOME": str(home)}
    subprocess.run(command, env=environment, cwd=home, check=True, capture_output=True)


def _ticks(
    session: Session, name: str, definitions: list[str], before: Callable[[], None]
) -> tuple[float, float]:
    """Median seconds from tick to success, and median event bytes of each materialised asset."""
    home = dagster_dev.make_home(session.directory / f"home-{name}")
    say(f"{name}: {TICKS} ticks in dagster dev")
    taken, sizes, known = [], [], set()
    before()
    with dagster_dev.running(home, definitions, session.variables) as instance:
        for _ in range(TICKS):
            run = dagster_dev.next_run(instance, known)
            known.add(run.run_id)
            taken.append(run.ended)
            made = instance.get_records_for_run(
                run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION, limit=1000
            )
            sizes.append(_event_bytes(home, run.run_id) / len(made.records))
            say(f"after the tick: {run}; {sizes[-1]:,.0f} bytes for each of {len(made.records)} assets")
            before()
    return median(taken), median(sizes)


def _event_bytes(home: Path, run_id: str) -> int:
    """Of all events of a run, as SQLite stores them."""
    (database,) = home.rglob(f"{run_id}.db")
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT sum(length(event)) FROM event_logs").fetchone()[0]


def _connections(session: Session) -> Row:
    """Sessions that PostgreSQL counts for a run in this process, with Dagster's storage on it."""
    say("database connections of a run, with Dagster's storage on PostgreSQL")

    @dg.asset
    def empty() -> None: ...

    recipes = [recipe.name for recipe in load_recipes().values() if not recipe.baseline]
    graph = Graph({**session.variables, "MLPLATFORM_S3_PREFIX": "connections"}, models=recipes)
    job = dg.Definitions([empty], jobs=[dg.define_asset_job("empty_job", [empty])]).resolve_job_def(
        "empty_job"
    )

    def ours(instance: dg.DagsterInstance) -> None:
        graph.push(Pushed("series", 1.0))
        graph.run(instance=instance)

    return Row(
        "database connections of a run in this process, against one empty asset",
        _sessions(session, "ours", ours),
        _sessions(session, "empty", lambda instance: job.execute_in_process(instance=instance)),
        "",
    )


def _sessions(session: Session, name: str, run: Callable[[dg.DagsterInstance], object]) -> int:
    """How many more sessions a database of its own has had after a run."""
    url = session.settings.database_url
    database = f"bench_{name}"
    with closing(psycopg2.connect(url.replace("+psycopg2", ""))) as connection, connection.cursor() as cursor:
        connection.autocommit = True
        cursor.execute(f"CREATE DATABASE {database}")

        def counted() -> int:
            time.sleep(2)  # a session is counted a moment after it ended
            cursor.execute("SELECT sessions FROM pg_stat_database WHERE datname = %s", [database])
            return cursor.fetchone()[0]

        home = session.directory / f"home-postgresql-{name}"
        home.mkdir()
        path, _, query = url.partition("?")
        own = f"{path.rpartition('/')[0]}/{database}" + (f"?{query}" if query else "")
        (home / "dagster.yaml").write_text(
            f"telemetry: {{enabled: false}}\nstorage: {{postgres: {{postgres_url: '{own}'}}}}\n"
        )
        with dg.DagsterInstance.from_config(str(home)) as instance:
            run(instance)  # makes the tables
            before = counted()
            run(instance)
            return counted() - before
