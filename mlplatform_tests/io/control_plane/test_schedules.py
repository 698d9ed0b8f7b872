from __future__ import annotations

import uuid
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mlplatform.domain.jobs.specs import JobSpec, PipelineSpec
from mlplatform.io.control_plane import declared, events, pipelines, schedules, tables
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.job_rows import Conflict, NotFound
from mlplatform.io.control_plane.schedules import NewSchedule

SPEC = JobSpec.model_validate({"name": "hello", "command": ["true"]})
NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def make(database: Database, **new: Any) -> uuid.UUID:
    with database.transaction() as connection:
        return schedules.create(connection, NewSchedule("nightly", **new))["id"]


def jobs_made(database: Database) -> int:
    with database.transaction() as connection:
        return len(connection.execute(tables.jobs.select()).all())


def test_each_time_of_a_schedule_makes_one_job_whoever_asks_and_how_often(database: Database) -> None:
    id_ = make(database, spec=SPEC, cron="0 * * * *", priority=7)

    def fire(hour: int) -> Any:
        with database.transaction() as connection:
            return declared.job_for(connection, id_, NOON + timedelta(hours=hour))

    with ThreadPoolExecutor(8) as pool:
        fired = list(pool.map(fire, [0, 1, 0, 1, 0, 1, 0, 1]))
    assert len({job["id"] for job in fired}) == jobs_made(database) == 2
    assert {(job["priority"], job["schedule_id"], job["name"]) for job in fired} == {(7, id_, "nightly")}


def test_a_schedule_that_is_paused_or_removed_makes_none(database: Database) -> None:
    id_ = make(database, spec=SPEC, cron="0 * * * *")
    for move, makes in ((schedules.pause, 0), (schedules.resume, 1), (schedules.delete, 1)):
        with database.transaction() as connection:
            move(connection, id_)
            declared.job_for(connection, id_, NOON)
        assert jobs_made(database) == makes
    for move in (schedules.pause, schedules.resume, schedules.delete, schedules.get):
        with pytest.raises(NotFound), database.transaction() as connection:
            move(connection, id_)
    with database.transaction() as connection:
        told = [row["type"] for row in events.after(connection, 0) if row["type"].startswith("schedule.")]
    assert told == ["schedule.created", "schedule.updated", "schedule.updated", "schedule.deleted"]


def test_one_time_comes_once(database: Database) -> None:
    past, later = NOON, datetime.now(UTC) + timedelta(hours=1)
    due = make(database, spec=SPEC, due_at=past)
    waits, paused = (
        make(database, spec=SPEC, due_at=later),
        make(database, spec=SPEC, due_at=past, paused=True),
    )

    def look(_: int) -> int:
        with database.transaction() as connection:
            return len(declared.due_jobs(connection))

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(look, range(8))) == jobs_made(database) == 1
    with database.transaction() as connection:
        assert schedules.coming(schedules.get(connection, due), 5) == []
        assert schedules.coming(schedules.get(connection, waits), 5) == [later]
        assert schedules.coming(schedules.get(connection, paused), 5) == []
        schedules.resume(connection, paused)
    assert look(0) == 1
    with pytest.raises(Conflict, match="was done"), database.transaction() as connection:
        schedules.resume(connection, due)
    with database.transaction() as connection:
        # Another time of the same one.
        schedules.replace(connection, due, NewSchedule("again", spec=SPEC, due_at=past + timedelta(hours=1)))
    assert look(0) == 1
    assert jobs_made(database) == 3


def test_the_next_times_are_told_in_the_schedule_s_zone(database: Database) -> None:
    id_ = make(database, spec=SPEC, cron="30 9 * * mon", timezone="Europe/Madrid")
    with database.transaction() as connection:
        times = schedules.coming(schedules.get(connection, id_), 2, NOON)
    assert [time.isoformat() for time in times] == ["2026-01-05T09:30:00+01:00", "2026-01-12T09:30:00+01:00"]


def test_what_a_pipeline_says_is_changed_there_and_goes_with_it(database: Database) -> None:
    spec = PipelineSpec.model_validate({"name": "etl", "triggers": [{"schedule": {"cron": "0 0 * * *"}}]})
    with database.transaction() as connection:
        pipeline = pipelines.create(connection, spec)["id"]
        (trigger,) = schedules.declared_of(connection, pipeline)
    own = make(database, pipeline_id=pipeline, cron="0 * * * *")
    with pytest.raises(Conflict, match="trigger of its pipeline"), database.transaction() as connection:
        schedules.replace(connection, trigger.id, NewSchedule("a", pipeline_id=pipeline, cron="1 * * * *"))
    with database.transaction() as connection:
        pipelines.delete(connection, pipeline)
        for id_ in (trigger.id, own):
            with pytest.raises(NotFound):
                schedules.get(connection, id_)
            assert declared.job_for(connection, id_, NOON) is None
    with pytest.raises(NotFound, match="no pipeline"):
        make(database, pipeline_id=pipeline, cron="0 * * * *")
    with pytest.raises(NotFound, match="no pipeline"):
        make(database, pipeline_id=uuid.uuid4(), cron="0 * * * *")
