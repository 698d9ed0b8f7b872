"""The client of Dagit against a real one, with the control plane's code location and real runs in it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import executions, jobs, tables
from mlplatform.io.control_plane.dagster_graphql import (
    ENDED,
    JOB_TAG,
    LOCATION_TAG,
    Dagster,
    DagsterRefused,
    DagsterUnreachable,
)
from mlplatform.io.control_plane.database import Database
from mlplatform.local import ports
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.local.processes import environment, eventually
from mlplatform_tests.stage_workers import add_pipeline, attempts, new_job, status, working

START_SECONDS, RUN_SECONDS = 90, 40
LOCATION = "mlplatform.control_plane_definitions"
WORKSPACE = f"load_from:\n  - python_module: {{module_name: {LOCATION}, location_name: {LOCATION}}}\n"


@pytest.fixture(scope="module")
def database(stack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database


@pytest.fixture(scope="module")
def dagster(stack, database: Database, tmp_path_factory) -> Iterator[Dagster]:
    """Dagit and the daemon as the repository's dagster.yaml has them."""
    home = tmp_path_factory.mktemp("dagster")
    shutil.copy("dagster.yaml", home)
    (home / "workspace.yaml").write_text(WORKSPACE)
    port = ports.choose(set())
    variables = environment(home, **stack.variables, MLPLATFORM_CONTROL_PLANE_SCHEMA=database.schema)
    variables.pop("DAGSTER_HOME", None)
    dagster = Dagster(f"http://127.0.0.1:{port}")
    with open(home / "log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml", "-p", str(port)],
            cwd=home,
            env=variables,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        assert eventually(lambda: answers(dagster), START_SECONDS), (home / "log").read_text()
        yield dagster
    finally:
        dagster.close()
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(dagster: Dagster) -> bool:
    try:
        dagster.schedules()
    except (DagsterUnreachable, DagsterRefused):
        return False
    return True


def ended(dagster: Dagster, run_id: str) -> bool:
    [run] = dagster.runs(run_ids=[run_id])
    return run.status in ENDED


def launch(dagster: Dagster, job: str, job_id: uuid.UUID, **tags: str) -> str:
    return dagster.launch(job, {JOB_TAG: str(job_id), **tags})


def command(database: Database) -> uuid.UUID:
    return new_job(database, spec=JobSpec(name="a command", command=["true"]))


def test_many_jobs_are_asked_for_in_parts(monkeypatch):
    asked = []

    def answered(self: Dagster, query: str, variables: dict[str, Any], seconds: float | None) -> Any:
        asked.append(len(variables))
        return {name: {"__typename": "Runs", "results": []} for name in variables}

    monkeypatch.setattr(Dagster, "_post", answered)
    job_ids = [str(uuid.uuid4()) for _ in range(250)]
    assert Dagster("http://127.0.0.1:9").runs_of(job_ids) == {job_id: [] for job_id in job_ids}
    assert asked == [100, 100, 50]


def test_a_run_is_launched_and_found_again(dagster, database):
    job_id, other = command(database), uuid.uuid4()
    began = datetime.now(UTC)
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    with working(database, lambda execution: (["hello"], 0)):
        run_id = dagster.launch("command", {JOB_TAG: str(job_id)}, traceparent=trace)
        assert eventually(lambda: ended(dagster, run_id), RUN_SECONDS)
    found = dagster.runs_of([str(job_id), str(other)])
    assert found[str(other)] == []
    [run] = found[str(job_id)]
    assert (run.run_id, run.status, run.job_name, run.job_id) == (run_id, "SUCCESS", "command", str(job_id))
    assert run.tags["mlplatform/traceparent"] == trace
    assert run.started_at
    assert run.ended_at
    assert began < run.created_at < run.started_at < run.ended_at
    assert not run.will_retry
    tags = {LOCATION_TAG: LOCATION}
    assert run_id in [each.run_id for each in dagster.runs(tags, updated_after=began)]
    assert run_id not in [
        each.run_id for each in dagster.runs(tags, datetime.now(UTC) + timedelta(minutes=1))
    ]
    assert dagster.runs(run_ids=[]) == []
    assert status(database, job_id) == State.SUCCESS


def test_why_a_run_failed_is_one_sentence(dagster, database):
    job_id = command(database)
    with working(database, lambda execution: (["no such file"], 2)):
        run_id = launch(dagster, "command", job_id)
        assert eventually(lambda: ended(dagster, run_id), RUN_SECONDS)
    assert dagster.failure(run_id) == "follow_command: exit code 2\nIts last lines:\nno such file"
    [run] = dagster.runs(run_ids=[run_id])
    assert run.status == "FAILURE"
    # A step that failed is not begun again: the database has counted the attempts.
    assert eventually(lambda: dagster.runs(run_ids=[run_id])[0].will_retry is False)


def test_a_run_whose_process_is_killed_is_replaced_by_one_that_follows_the_same_execution(dagster, database):
    job_id = command(database)
    held = {}

    def hold(execution):
        held["execution"] = execution
        return ["working"], None

    with working(database, hold):
        run_id = launch(dagster, "command", job_id)
        assert eventually(lambda: attempts(database, job_id) == [("command", State.RUNNING)], RUN_SECONDS)
        os.kill(process_of(dagster, run_id), signal.SIGKILL)
        assert eventually(lambda: dagster.runs(run_ids=[run_id])[0].retried_by is not None, RUN_SECONDS)
        [killed] = dagster.runs(run_ids=[run_id])
        assert (killed.status, killed.will_retry) == ("FAILURE", True)
        assert "terminated by signal 9" in (dagster.failure(run_id) or "")
        second = killed.retried_by
        assert second
        assert eventually(lambda: dagster.runs(run_ids=[second])[0].status == "STARTED", RUN_SECONDS)
        with database.transaction() as connection:
            execution = held["execution"]
            executions.finish(connection, execution.id, execution.lease, State.SUCCESS, 0)
        assert eventually(lambda: ended(dagster, second), RUN_SECONDS)
    assert [run.status for run in dagster.runs_of([str(job_id)])[str(job_id)]] == ["SUCCESS", "FAILURE"]
    assert attempts(database, job_id) == [("command", State.SUCCESS)]


def process_of(dagster: Dagster, run_id: str) -> int:
    for event in dagster._events(run_id):
        if event["__typename"] == "EngineEvent" and event["message"].startswith("Started process for run"):
            return int(event["message"].rpartition("pid: ")[2].rstrip(")."))
    raise AssertionError("the run has no process")


def test_a_run_that_is_terminated_cancels_its_job(dagster, database):
    job_id = command(database)
    with working(database, lambda execution: ([], None)):
        run_id = launch(dagster, "command", job_id)
        assert eventually(lambda: status(database, job_id) == State.RUNNING, RUN_SECONDS)
        dagster.terminate(run_id)
        assert eventually(lambda: ended(dagster, run_id), RUN_SECONDS)
    assert dagster.runs(run_ids=[run_id])[0].status == "CANCELED"
    assert status(database, job_id) == State.CANCELLED
    dagster.terminate(run_id)


def test_the_run_of_a_job_that_is_cancelled_ends_as_cancelled(dagster, database):
    job_id = command(database)
    with working(database, lambda execution: ([], None)):
        run_id = launch(dagster, "command", job_id)
        assert eventually(lambda: status(database, job_id) == State.RUNNING, RUN_SECONDS)
        with database.transaction() as connection:
            jobs.cancel(connection, job_id)
        assert eventually(lambda: ended(dagster, run_id), RUN_SECONDS)
    assert dagster.runs(run_ids=[run_id])[0].status == "CANCELED"


def test_a_reload_shows_what_was_made_and_says_what_is_wrong(dagster, database):
    stages = [
        {"name": "a", "commands": ["true"]},
        {"name": "b", "commands": ["true"], "dependencies": ["a"]},
        {"name": "c", "commands": ["true"], "dependencies": ["a"]},
    ]
    pipeline_id = add_pipeline(database, stages, "made")
    with pytest.raises(DagsterRefused, match="made"):
        dagster.launch("made", {})
    with database.transaction() as connection:
        connection.execute(
            tables.schedules.insert().values(
                id=uuid.uuid4(), name="daily", slug="daily", pipeline_id=pipeline_id, cron="0 3 * * *"
            )
        )
    assert dagster.reload() is None
    [schedule] = dagster.schedules()
    assert (schedule.name, schedule.cron, schedule.running) == ("daily", "0 3 * * *", True)
    dagster.stop_schedule("daily")
    assert not dagster.schedules()[0].running
    dagster.start_schedule("daily")
    assert dagster.schedules()[0].running

    job_id = new_job(database, pipeline_id=pipeline_id)
    with working(database, lambda execution: ([], 0)) as worker:
        run_id = launch(dagster, "made", job_id)
        assert eventually(lambda: ended(dagster, run_id), RUN_SECONDS)
    assert dagster.runs(run_ids=[run_id])[0].status == "SUCCESS", dagster.failure(run_id)
    assert worker.ran[0] == "a"
    assert sorted(worker.ran) == ["a", "b", "c"]

    with database.transaction() as connection:
        connection.execute(update(tables.schedules).values(cron="never"))
    assert "never" in (dagster.reload() or "")
    with database.transaction() as connection:
        connection.execute(update(tables.schedules).values(cron="0 4 * * *"))
    assert dagster.reload() is None
    assert dagster.schedules()[0].cron == "0 4 * * *"


def test_a_code_server_that_died_is_started_again_by_the_next_launch(dagster, database):
    # Of those before a reload, some may still end.
    server = max(
        int(entry.name)
        for entry in Path("/proc").glob("[0-9]*")
        if b"api\0grpc" in _read(entry / "cmdline") and database.schema.encode() in _read(entry / "environ")
    )
    os.kill(server, signal.SIGKILL)
    job_id = command(database)
    with working(database, lambda execution: ([], 0)):
        launch(dagster, "command", job_id)
        # Dagster's daemon may have met the dead one too: then it begins the run again by itself.
        assert eventually(lambda: status(database, job_id) == State.SUCCESS, RUN_SECONDS)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""


def test_what_dagster_refuses_is_said_in_its_words(dagster):
    with pytest.raises(DagsterRefused, match="nothing"):
        dagster.launch("nothing", {})
    with pytest.raises(DagsterRefused, match='unexpected config entry "nothing"'):
        dagster.launch("command", {}, {"ops": {"nothing": 1}})
    with pytest.raises(DagsterRefused, match="nothing"):
        dagster.reload("nothing")
    with pytest.raises(DagsterRefused, match="nothing"):
        dagster.start_schedule("nothing")
    with pytest.raises(DagsterRefused, match="nothing"):
        dagster.terminate("nothing")


def test_where_no_dagit_is_it_is_unreachable(stack):
    elsewhere = Settings(stack.variables).s3.endpoint_url
    assert elsewhere
    with closing(Dagster("http://127.0.0.1:9")) as nobody, closing(Dagster(elsewhere)) as other:
        with pytest.raises(DagsterUnreachable, match="Connection refused"):
            nobody.runs()
        with pytest.raises(DagsterRefused, match="is not Dagit's"):
            other.runs()
