"""Pipelines, commands and schedules of the control plane in Dagster, with a worker of the test's."""

from __future__ import annotations

import json
import threading
import uuid
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.job_base import InMemoryJob
from dagster._core.execution.api import execute_run
from sqlalchemy import insert, update

from mlplatform.control_plane_definitions import definitions_of
from mlplatform.control_plane_definitions import defs as location
from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import executions, jobs, tables
from mlplatform.io.control_plane.database import Database, DatabaseUnreachable
from mlplatform.io.control_plane.run_tags import JOB_TAG, ROUND_TAG
from mlplatform.settings import Settings
from mlplatform_tests.control_planes import fresh_database
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.stage_workers import STAGES, add_pipeline, attempts, new_job, status, working


@pytest.fixture
def database(stack) -> Iterator[Database]:
    with fresh_database(Settings(stack.variables).database_url) as database:
        yield database


def run(
    database: Database, instance: dg.DagsterInstance, job: str, tags: Mapping[str, str] | None = None
) -> dg.ExecuteInProcessResult:
    resolved = definitions_of(database).resolve_job_def(job)
    return resolved.execute_in_process(instance=instance, raise_on_error=False, tags=dict(tags or {}))


def failure(result: dg.ExecuteInProcessResult) -> str:
    [event] = [event for event in result.all_events if event.is_step_failure]
    data = event.step_failure_data.user_failure_data
    return (data and data.description) or str(event.step_failure_data.error)


def test_the_stages_of_a_pipeline_run_in_their_order_and_show_what_they_print(
    database, dagster_instance, capfd
):
    pipeline_id = add_pipeline(database)
    job_id = new_job(database, pipeline_id=pipeline_id)
    with working(database, lambda execution: ([f"I am {execution.stage}"], 0)) as worker:
        result = run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)})
    assert result.success
    assert worker.ran == ["fetch", "train-model"]
    assert status(database, job_id) == State.SUCCESS
    assert capfd.readouterr().out.splitlines() == ["I am fetch", "I am train-model"]
    [event] = result.asset_materializations_for_node("nightly__train_model")
    assert event.asset_key == dg.AssetKey(["nightly", "train-model"])
    assert event.metadata["exit_code"].value == 0
    assert event.metadata["attempt"].value == 1
    assert event.metadata["seconds"].value > 0


def test_a_command_reports_metadata_by_pipes(database, dagster_instance, capfd):
    job_id = new_job(database, pipeline_id=add_pipeline(database, STAGES[:1]))

    def message(method: str, **params: Any) -> str:
        return json.dumps({"__dagster_pipes_version": "0.1", "method": method, "params": params})

    reported = {"rows": {"raw_value": 17, "type": "int"}}
    lines = [
        message("opened", extras={}),
        message(
            "report_asset_materialization", asset_key="nightly/fetch", data_version=None, metadata=reported
        ),
        message("no such method"),
        message("closed"),
    ]
    with working(database, lambda execution: (lines, 0)):
        result = run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)})
    assert result.success
    [event] = result.asset_materializations_for_node("nightly__fetch")
    assert event.metadata["rows"].value == 17
    assert event.metadata["exit_code"].value == 0
    # What is no message of Pipes is what the command prints.
    assert capfd.readouterr().out.splitlines() == [lines[2]]


def test_the_execution_has_the_variables_for_pipes_and_traces(database, dagster_instance):
    job_id = new_job(database, pipeline_id=add_pipeline(database, STAGES[:1]))
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    given = {}

    def ends(execution: Any) -> tuple[list[str], int]:
        given.update(execution.bootstrap)
        return [], 0

    with working(database, ends):
        run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id), "mlplatform/traceparent": trace})
    assert given["TRACEPARENT"] == trace
    assert given.keys() >= {"DAGSTER_PIPES_CONTEXT", "DAGSTER_PIPES_MESSAGES"}


def test_a_stage_that_fails_is_tried_again_as_often_as_it_may(database, dagster_instance):
    job_id = new_job(database, pipeline_id=add_pipeline(database))
    with working(
        database, lambda execution: (["oh", "no"], 3 if execution.stage != "fetch" else 0)
    ) as worker:
        result = run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)})
    assert not result.success
    assert worker.ran == ["fetch", "train-model", "train-model"]
    assert failure(result) == "exit code 3\nIts last lines:\noh\nno"
    assert status(database, job_id) == State.FAILED


def test_a_run_that_replaces_another_follows_what_there_is(database, dagster_instance, capfd):
    job_id = new_job(database, pipeline_id=add_pipeline(database))
    with database.transaction() as connection:
        executions.release(connection, job_id, "fetch")
    with working(database, lambda execution: ([execution.stage], 0)) as worker:
        assert eventually(lambda: attempts(database, job_id)[0] == ("fetch", State.SUCCESS))
        assert run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)}).success
    assert worker.ran == ["fetch", "train-model"]
    assert capfd.readouterr().out.splitlines() == ["fetch", "train-model"]


def test_a_stage_whose_worker_is_lost_is_followed_to_the_next_one(database, dagster_instance):
    job_id = new_job(database, pipeline_id=add_pipeline(database, STAGES[:1]))
    seen = []

    def ends(execution: Any) -> tuple[list[str], int | None]:
        seen.append(execution.id)
        return ([], None) if len(seen) == 1 else (["done"], 0)

    def lose() -> None:
        assert eventually(lambda: attempts(database, job_id) == [("fetch", State.RUNNING)])
        with database.transaction() as connection:
            executions.lose(connection, seen[0], None, "the worker is heard no more")  # type: ignore[arg-type]

    with working(database, ends):
        losing = threading.Thread(target=lose)
        losing.start()
        result = run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)})
        losing.join()
    assert result.success
    # One attempt of Dagster's, two of the database's.
    assert not [event for event in result.all_events if event.event_type_value == "STEP_UP_FOR_RETRY"]
    assert attempts(database, job_id) == [("fetch", State.FAILED), ("fetch", State.SUCCESS)]


def test_a_stage_that_ends_with_another_does_not_end_the_run_as_cancelled(database, dagster_instance):
    both = [{"name": name, "commands": ["true"]} for name in ("a", "b")]
    job_id = new_job(database, pipeline_id=add_pipeline(database, both))

    def fail() -> None:
        assert eventually(lambda: ("a", State.RUNNING) in attempts(database, job_id))
        with database.transaction() as connection:
            released = executions.release(connection, job_id, "b")
            given = executions.schedule(connection, released.id, None)
            executions.start(connection, given.id, given.lease)
            executions.finish(connection, given.id, given.lease, State.FAILED, 1, Reason.EXIT_CODE, "no")

    with working(database, lambda execution: ([], None)):
        failing = threading.Thread(target=fail)
        failing.start()
        result = run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)})
        failing.join()
    said = {
        event.step_key: event.step_failure_data.user_failure_data.description
        for event in result.all_events
        if event.is_step_failure
    }
    assert said["nightly__a"] == "the job failed with another of its stages"
    assert status(database, job_id) == State.FAILED


def test_a_run_of_a_job_that_was_cancelled_runs_nothing(database, dagster_instance):
    job_id = new_job(database, pipeline_id=add_pipeline(database))
    with database.transaction() as connection:
        jobs.cancel(connection, job_id)
    result = run(database, dagster_instance, "nightly", {JOB_TAG: str(job_id)})
    assert not result.success
    assert failure(result) == "the job was cancelled"


def test_a_run_that_a_person_starts_makes_its_job(database, dagster_instance):
    add_pipeline(database)
    with working(database, lambda execution: ([], 0)) as worker:
        result = run(database, dagster_instance, "nightly")
    assert result.success
    assert worker.ran == ["fetch", "train-model"]
    made = dagster_instance.get_run_by_id(result.run_id)
    job_id = uuid.UUID(made.tags[JOB_TAG])
    with database.transaction() as connection:
        job = jobs.get(connection, job_id)
    assert (job["run_id"], job["status"]) == (result.run_id, State.SUCCESS)


def test_a_run_that_a_person_re_executes_is_another_job(database, dagster_instance):
    add_pipeline(database)
    with working(database, lambda execution: ([], 0)) as worker:
        first = run(database, dagster_instance, "nightly")
        before = dagster_instance.get_run_by_id(first.run_id).tags[JOB_TAG]
        job = definitions_of(database).resolve_job_def("nightly")
        again = dagster_instance.create_run_for_job(
            job, parent_run_id=first.run_id, root_run_id=first.run_id, tags={JOB_TAG: before, ROUND_TAG: "2"}
        )
        assert execute_run(InMemoryJob(job), again, dagster_instance).success
    assert len(worker.ran) == 4
    tags = dagster_instance.get_run_by_id(again.run_id).tags
    assert tags[JOB_TAG] != before
    assert tags[ROUND_TAG] == "1"


def test_a_command_runs_without_a_pipeline(database, dagster_instance, capfd):
    spec = JobSpec(name="say hello", command=["echo", "hello"])
    job_id = new_job(database, spec=spec)
    with working(database, lambda execution: (["hello"], 0)):
        assert run(database, dagster_instance, "command", {JOB_TAG: str(job_id)}).success
    assert capfd.readouterr().out == "hello\n"
    assert "here is none to run" in failure(run(database, dagster_instance, "command"))


def test_stages_that_can_run_at_once_do_so_in_processes(database):
    diamond = [
        {"name": "a", "commands": ["true"]},
        {"name": "b", "commands": ["true"], "dependencies": ["a"]},
        {"name": "c", "commands": ["true"], "dependencies": ["a"]},
    ]
    add_pipeline(database)
    add_pipeline(database, diamond, "diamond")
    add_pipeline(database, [], "nothing")
    loaded = definitions_of(database)
    assert loaded.resolve_job_def("nightly").executor_def is dg.in_process_executor
    assert loaded.resolve_job_def("diamond").executor_def.name == "multiprocess"
    graph = loaded.resolve_asset_graph()
    assert graph.get(dg.AssetKey(["diamond", "c"])).parent_keys == {dg.AssetKey(["diamond", "a"])}
    assert {job.name for job in loaded.resolve_all_job_defs()} >= {"nightly", "diamond", "command"}


def add_schedule(database: Database, **values: Any) -> uuid.UUID:
    id_ = uuid.uuid4()
    values = {"id": id_, "name": "every night", "slug": "every_night", **values}
    with database.transaction() as connection:
        connection.execute(insert(tables.schedules).values(**values))
    return id_


def test_a_schedule_makes_one_job_for_each_of_its_times(database, dagster_instance):
    id_ = add_schedule(database, pipeline_id=add_pipeline(database), cron="0 3 * * *", priority=7)
    schedule = definitions_of(database).resolve_schedule_def("every_night")
    assert schedule.default_status is dg.DefaultScheduleStatus.RUNNING
    at = datetime(2026, 3, 1, 3, tzinfo=UTC)

    def evaluate(at: datetime) -> Any:
        context = dg.build_schedule_context(dagster_instance, scheduled_execution_time=at)
        return schedule.evaluate_tick(context)

    [request] = evaluate(at).run_requests
    assert evaluate(at).run_requests == [request]
    assert evaluate(at + timedelta(days=1)).run_requests != [request]
    assert request.tags[JOB_TAG] == request.run_key
    assert request.tags["dagster/priority"] == "7"
    with database.transaction() as connection:
        job = jobs.get(connection, uuid.UUID(request.run_key))
        assert (job["schedule_id"], job["scheduled_for"], job["priority"]) == (id_, at, 7)
        # Not launched by the control plane besides.
        assert job["asked_at"] is not None
        connection.execute(update(tables.schedules).values(paused=True))
    tick = evaluate(at + timedelta(days=2))
    assert (tick.run_requests, tick.skip_message) == ([], "The schedule is paused or deleted.")
    paused = definitions_of(database).resolve_schedule_def("every_night")
    assert paused.default_status is dg.DefaultScheduleStatus.STOPPED


def test_a_one_off_schedule_runs_once_when_its_time_has_come(database, dagster_instance):
    spec = JobSpec(name="once", command=["true"]).model_dump(mode="json")
    past, future = datetime.now(UTC) - timedelta(minutes=1), datetime.now(UTC) + timedelta(hours=1)
    due = add_schedule(database, spec=spec, due_at=past)
    add_schedule(database, spec=spec, due_at=future, slug="later")
    add_schedule(database, spec=spec, due_at=past, slug="paused", paused=True)
    add_schedule(database, pipeline_id=add_pipeline(database, [], "nothing"), due_at=past, slug="empty")
    sensor = definitions_of(database).resolve_sensor_def("one_off_schedules")

    def evaluate() -> Any:
        return sensor.evaluate_tick(dg.build_sensor_context(dagster_instance)).run_requests

    [request] = evaluate()
    assert request.job_name == "command"
    with database.transaction() as connection:
        assert jobs.get(connection, uuid.UUID(request.tags[JOB_TAG]))["schedule_id"] == due
    assert evaluate() == []


def test_the_location_is_empty_without_a_database(tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("MLPLATFORM_DATA_DIRECTORY", str(tmp_path))
    monkeypatch.delenv("MLPLATFORM_DATABASE_URL", raising=False)
    assert not location().jobs
    assert "start it with `mlplatform up`" in caplog.text
    monkeypatch.setenv("MLPLATFORM_DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:9/none")
    with pytest.raises(DatabaseUnreachable, match="connection") as raised:
        location()
    assert "secret" not in str(raised.value)


def test_the_location_is_empty_before_there_is_a_control_plane(stack):
    empty = Database(Settings(stack.variables).database_url, schema="never_made")
    try:
        assert not definitions_of(empty).jobs
    finally:
        empty.close()
