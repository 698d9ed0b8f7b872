"""Schedules of the control plane as schedules and a sensor of Dagster's, which make the jobs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlplatform.domain.jobs.states import TERMINAL, State
from mlplatform.io.control_plane import declared
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.run_tags import JOB_TAG

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

COMMAND = "command"
# As often as the daemon looks at sensors.
LOOK_SECONDS = 5


def schedule_of(database: Database, schedule: RowMapping) -> dg.ScheduleDefinition:
    """A row with a line of cron as a schedule.

    The row is read again at each of its times: paused or deleted, it makes no job, even if Dagster has not
    been told.
    """
    schedule_id = schedule["id"]

    def evaluate(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        with database.transaction() as connection:
            job = declared.job_for(connection, schedule_id, context.scheduled_execution_time)
        if job is None:
            return dg.SkipReason("The schedule is paused or deleted.")
        return _request(job) if _runs(job) else dg.SkipReason("There is nothing in it to run.")

    status = dg.DefaultScheduleStatus
    return dg.ScheduleDefinition(
        name=schedule["slug"],
        job_name=schedule["job_name"] or COMMAND,
        cron_schedule=schedule["cron"],
        execution_timezone=schedule["timezone"],
        execution_fn=evaluate,
        default_status=status.STOPPED if schedule["paused"] else status.RUNNING,
        description=f"The schedule {schedule['name']}.",
    )


def one_off_sensor(database: Database, targets: Sequence[Any]) -> dg.SensorDefinition:
    """Makes the jobs of schedules with one time, when it has come."""

    @dg.sensor(
        name="one_off_schedules",
        jobs=targets,
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Runs what is scheduled for one time.",
    )
    def one_off_schedules(_: dg.SensorEvaluationContext) -> Iterator[dg.RunRequest]:
        with database.transaction() as connection:
            due = declared.due_jobs(connection)
        yield from (_request(job) for job in due if _runs(job))

    return one_off_schedules


def _runs(job: RowMapping) -> bool:
    """One of a pipeline without stages has ended already."""
    return State(job["status"]) not in TERMINAL


def _request(job: RowMapping) -> dg.RunRequest:
    return dg.RunRequest(
        # Dagster makes one run for each key, ever.
        run_key=str(job["id"]),
        job_name=job["job_name"] or COMMAND,
        tags={JOB_TAG: str(job["id"]), "dagster/priority": str(job["priority"])},
    )
