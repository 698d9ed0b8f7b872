from __future__ import annotations

import uuid
from typing import Any

import pytest

from mlplatform.domain.jobs.specs import JobSpec, PipelineSpec
from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import events, executions, jobs, tables
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.control_plane.job_rows import LAUNCHING, Conflict, NotFound
from mlplatform_tests.io.control_plane.histories import check


def made(database: Database, *stages: str, more: dict[str, Any] | None = None, **new: Any) -> uuid.UUID:
    spec = PipelineSpec.model_validate(
        {"name": "etl", "stages": [{"name": name, "commands": ["true"]} for name in stages], **(more or {})}
    )
    pipeline = uuid.uuid4()
    row = {"id": pipeline, "name": "etl", "slug": pipeline.hex, "spec": spec.model_dump(mode="json")}
    with database.transaction() as connection:
        connection.execute(tables.pipelines.insert().values(row))
        return jobs.create(connection, jobs.NewJob(pipeline_id=pipeline, **new))["id"]


def begin(database: Database, job_id: uuid.UUID, stage: str) -> Any:
    with database.transaction() as connection:
        waiting = executions.release(connection, job_id, stage)
        given = executions.schedule(connection, waiting.id, None)
        assert given is not None
        return executions.start(connection, given.id, given.lease)


def finish(database: Database, given: Any, status: State, reason: Reason | None = None) -> None:
    with database.transaction() as connection:
        executions.finish(connection, given.id, given.lease, status, 0, reason, "so")


def job(database: Database, job_id: uuid.UUID) -> Any:
    with database.transaction() as connection:
        return jobs.get(connection, job_id)


def told(database: Database, job_id: uuid.UUID) -> list[str]:
    with database.transaction() as connection:
        return [row["type"] for row in events.after(connection, 0, job_id=job_id)]


def test_a_job_is_asked_of_dagster_and_goes_through_its_states(database: Database) -> None:
    with database.listening(LAUNCHING) as listening:
        one = made(database, "a", "b", name="nightly", priority=3, created_by="ada")
        assert [each.payload for each in listening.notifies(timeout=0.2)] == [str(one)]
    with database.transaction() as connection:
        jobs.launched(connection, one, 1, "run-1")
        jobs.launched(connection, one, 1, "run-1")
        jobs.launched(connection, one, 7, "of another round")
    assert job(database, one)["run_id"] == "run-1"
    for stage in ("a", "b"):
        finish(database, begin(database, one, stage), State.SUCCESS)
    of_a_stage = ["execution.scheduled", "execution.running", "execution.success"]
    assert told(database, one) == [
        "job.pending",
        "job.scheduled",
        *of_a_stage[:2],
        "job.running",
        of_a_stage[2],
        *of_a_stage,
        "job.success",
    ]
    ended = job(database, one)
    assert (ended["name"], ended["priority"], ended["created_by"]) == ("nightly", 3, "ada")
    assert ended["created_at"] <= ended["scheduled_at"] <= ended["started_at"] <= ended["finished_at"]
    check(database, one)


def test_a_pipeline_without_stages_succeeds_at_once(database: Database) -> None:
    one = made(database)
    assert job(database, one)["status"] == State.SUCCESS
    assert told(database, one) == ["job.pending", "job.success"]


def test_a_stage_s_variables_go_over_those_of_the_job_and_these_over_the_pipeline_s(
    database: Database,
) -> None:
    more = {
        "environment": {"A": "pipeline", "B": "pipeline", "C": "pipeline"},
        "stages": [{"name": "a", "commands": ["one", "two"], "environment": {"C": "stage"}}],
    }
    one = made(database, more=more, environment={"B": "job", "C": "job"})
    with database.transaction() as connection:
        spec = JobSpec.model_validate(executions.executions_of(connection, one)[0]["spec"])
    assert spec.env == {"A": "pipeline", "B": "job", "C": "stage"}
    assert spec.command == ["/bin/sh", "-ec", "one\ntwo"]


def test_what_succeeded_is_not_run_again_when_a_job_is_tried_again(database: Database) -> None:
    one = made(database, "a", "b", "c")
    finish(database, begin(database, one, "a"), State.SUCCESS)
    both = begin(database, one, "b"), begin(database, one, "c")
    finish(database, both[0], State.FAILED, Reason.EXIT_CODE)
    failed = job(database, one)
    assert (failed["status"], failed["reason"], failed["message"]) == (State.FAILED, "exit_code", "b: so")
    with pytest.raises(LeaseLost):
        finish(database, both[1], State.SUCCESS)
    with database.transaction() as connection:
        again = jobs.retry(connection, one)
        assert (again["status"], again["round"], again["run_id"]) == (State.PENDING, 2, None)
        assert not jobs.fail(connection, one, 1, Reason.RUN_FAILED, "the run before ended")
        attempts = [(row["stage"], row["attempt"]) for row in executions.executions_of(connection, one)]
        # By a step that was begun again: nothing is made of it.
        assert executions.release(connection, one, "a").status == State.SUCCESS
    assert attempts == [("a", 1), ("b", 1), ("b", 2), ("c", 1), ("c", 2)]
    for stage in ("b", "c"):
        finish(database, begin(database, one, stage), State.SUCCESS)
    assert job(database, one)["status"] == State.SUCCESS
    with database.transaction() as connection:
        assert executions.release(connection, one, "a").status == State.SUCCESS
    check(database, one)


@pytest.mark.parametrize("reason", [Reason.NOT_STARTED, Reason.ARTEFACTS_LOST])
def test_what_another_attempt_would_not_mend_fails_the_job(database: Database, reason: Reason) -> None:
    one = made(database, more={"stages": [{"name": "a", "commands": ["true"], "retries": 5}]})
    finish(database, begin(database, one, "a"), State.FAILED, reason)
    assert (job(database, one)["status"], job(database, one)["reason"]) == (State.FAILED, reason)
    check(database, one)


def test_whoever_cancels_ends_whatever_runs_and_nothing_follows(database: Database) -> None:
    one = made(database, "a", "b")
    running = begin(database, one, "a")
    with database.transaction() as connection:
        jobs.cancel(connection, one)
        jobs.cancel(connection, one)
    with pytest.raises(LeaseLost):
        finish(database, running, State.SUCCESS)
    with database.transaction() as connection:
        assert not jobs.fail(connection, one, 1, Reason.RUN_FAILED, "terminated")
        jobs.launched(connection, one, 1, "too late")
        assert jobs.get(connection, one)["run_id"] == "too late"
    for move in (jobs.retry, lambda connection, id_: executions.release(connection, id_, "b")):
        with pytest.raises(Conflict, match="Cancelled"), database.transaction() as connection:
            move(connection, one)
    assert told(database, one)[-3:] == ["execution.cancelled", "execution.cancelled", "job.cancelled"]
    check(database, one)


def test_a_job_that_has_succeeded_stays_so(database: Database) -> None:
    one = made(database)
    for move in (jobs.cancel, jobs.retry):
        with pytest.raises(Conflict), database.transaction() as connection:
            move(connection, one)
    assert job(database, one)["status"] == State.SUCCESS


def test_only_the_lease_that_was_given_is_taken(database: Database) -> None:
    one = made(database, "a")
    with database.transaction() as connection:
        waiting = executions.release(connection, one, "a")
        given = executions.schedule(connection, waiting.id, None)
    assert given is not None
    for lease in (uuid.uuid4(), uuid.UUID(int=0)):
        with pytest.raises(LeaseLost), database.transaction() as connection:
            executions.start(connection, given.id, lease)
        with pytest.raises(LeaseLost), database.transaction() as connection:
            executions.hold(connection, given.id, lease)


def test_a_failed_run_ends_what_nobody_will_run_any_more(database: Database) -> None:
    one = made(database, "a", "b")
    begin(database, one, "a")
    with database.transaction() as connection:
        assert jobs.fail(connection, one, 1, Reason.RUN_FAILED, "the daemon died")
        assert not jobs.fail(connection, one, 1, Reason.RUN_FAILED, "the daemon died")
    assert (job(database, one)["reason"], job(database, one)["message"]) == ("run_failed", "the daemon died")
    check(database, one)


def test_dagster_s_word_on_its_own_steps_is_told_with_the_states_between(database: Database) -> None:
    def said(one: uuid.UUID, *statuses: State) -> list[bool]:
        with database.transaction() as connection:
            return [jobs.by_dagster(connection, one, 1, status, "why") for status in statuses]

    yaml = {"yaml": "project: …"}
    one, two, three = (made(database, more=yaml) for _ in range(3))
    assert said(one, State.SUCCESS, State.FAILED, State.SUCCESS) == [True, False, False]
    assert told(database, one) == ["job.pending", "job.scheduled", "job.running", "job.success"]
    assert said(two, State.SCHEDULED, State.RUNNING, State.RUNNING, State.FAILED) == [True, True, False, True]
    assert (job(database, two)["reason"], job(database, two)["message"]) == (Reason.RUN_FAILED, "why")
    assert said(three, State.CANCELLED) == [True]
    assert told(database, three) == ["job.pending", "job.cancelled"]
    # Its own words count where it runs commands.
    assert said(made(database, "a"), State.SUCCESS) == [False]


def test_a_run_from_dagit_is_one_job_for_all_of_its_steps(database: Database) -> None:
    pipeline = job(database, made(database, "a", "b"))["pipeline_id"]
    with database.transaction() as connection:
        first = jobs.adopt(connection, "run-of-dagit", pipeline)
    with database.transaction() as connection:
        assert jobs.adopt(connection, "run-of-dagit", pipeline)["id"] == first["id"]
    assert (first["status"], first["run_id"]) == (State.SCHEDULED, "run-of-dagit")
    check(database, first["id"])


def test_a_run_with_stages_of_two_pipelines_is_no_job_of_both(database: Database) -> None:
    first, second = (job(database, made(database, "a"))["pipeline_id"] for _ in range(2))
    with database.transaction() as connection:
        jobs.adopt(connection, "run-of-dagit", first)
    with pytest.raises(Conflict, match="several pipelines"), database.transaction() as connection:
        jobs.adopt(connection, "run-of-dagit", second)


def test_a_run_that_is_terminated_cancels_its_job_and_no_other_round(database: Database) -> None:
    def interrupted(job_id: uuid.UUID, round_: int) -> bool:
        with database.transaction() as connection:
            return jobs.interrupt(connection, job_id, round_)

    job_id = made(database, "a", "b")
    begin(database, job_id, "a")
    finish(database, begin(database, job_id, "b"), State.FAILED, Reason.EXIT_CODE)
    assert not interrupted(job_id, 1)
    assert job(database, job_id)["status"] == State.FAILED
    with database.transaction() as connection:
        jobs.retry(connection, job_id)
    assert not interrupted(job_id, 1)
    assert job(database, job_id)["status"] == State.PENDING
    assert interrupted(job_id, 2)
    assert job(database, job_id)["status"] == State.CANCELLED
    check(database, job_id)


def test_what_is_not_there_is_said(database: Database) -> None:
    nothing = uuid.uuid4()
    there = made(database, "a")
    moves: list[Any] = [
        lambda connection: jobs.get(connection, nothing),
        lambda connection: jobs.cancel(connection, nothing),
        lambda connection: jobs.create(connection, jobs.NewJob(pipeline_id=nothing)),
        lambda connection: executions.release(connection, there, "z"),
        lambda connection: executions.start(connection, nothing, nothing),
        lambda connection: executions.get(connection, nothing),
    ]
    for move in moves:
        with (
            pytest.raises(NotFound, match=r"there is no|has no stage 'z'"),
            database.transaction() as connection,
        ):
            move(connection)
