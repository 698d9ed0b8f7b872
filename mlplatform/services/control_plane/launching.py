"""Asks Dagster for the runs of jobs, and looks what became of them."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from sqlalchemy import Row, func, select, update

from mlplatform.domain.jobs.states import TERMINAL, Reason, State
from mlplatform.io.control_plane import jobs, tables
from mlplatform.io.control_plane.dagster_graphql import (
    JOB_TAG,
    Dagster,
    DagsterRefused,
    DagsterUnreachable,
    Run,
)
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.jobs import COMMAND
from mlplatform.io.control_plane.run_tags import ROUND_TAG, round_of

log = logging.getLogger(__name__)

PRIORITY_TAG = "dagster/priority"
MOST_AT_ONCE = 100
# So long may a request be under way.
PATIENCE = timedelta(seconds=30)
# A run that Dagster has lost, with its history, is asked for again after so long.
LOST_AFTER = timedelta(seconds=60)

_jobs = tables.jobs


class Launcher:
    """One round after the other; nothing is remembered in between, so that any process can go on."""

    def __init__(self, database: Database, dagster: Dagster) -> None:
        self._database = database
        self._dagster = dagster

    def round(self) -> None:
        """
        Raises:
            TransientError: Dagster or the database does not answer; what was done stays.
        """
        for job in self._pending():
            self._launch(job)
        followed = self._followed()
        runs = self._dagster.runs_of([str(job.id) for job in followed])
        for job in followed:
            try:
                self._follow(
                    job, [run for run in runs.get(str(job.id), ()) if round_of(run.tags) == job.round]
                )
            except DagsterRefused as error:
                # The others are not held up by it.
                log.warning("job %s: %s", job.id, error)

    def _pending(self) -> Iterable[Row[Any]]:
        with self._database.transaction() as connection:
            return connection.execute(
                select(_jobs, tables.pipelines.c.slug)
                .outerjoin(tables.pipelines, tables.pipelines.c.id == _jobs.c.pipeline_id)
                .where(_jobs.c.run_id.is_(None), _jobs.c.status.not_in(TERMINAL))
                .order_by(_jobs.c.priority.desc(), _jobs.c.created_at)
                .limit(MOST_AT_ONCE)
            ).all()

    def _launch(self, job: Row[Any]) -> None:
        run = None
        if job.asked_at is not None:
            run = self._made_already(job)
            if run is None and datetime.now(UTC) - job.asked_at < PATIENCE:
                # Whoever asked may still be asking: another process, or a schedule of Dagster's.
                return
        if run is None:
            self._note(job.id, datetime.now(UTC))
            try:
                run = self._ask(job)
            except DagsterUnreachable:
                # We ask no more; the run is looked for before there is another. Were there two in the end,
                # both would follow the same executions, unless Dagster runs the steps itself.
                if not job.by_dagster:
                    self._note(job.id, datetime.now(UTC) - PATIENCE)
                raise
        if run is not None:
            with self._database.transaction() as connection:
                jobs.launched(connection, job.id, job.round, run)

    def _note(self, job_id: UUID, asked_at: datetime) -> None:
        with self._database.transaction() as connection:
            connection.execute(update(_jobs).where(_jobs.c.id == job_id).values(asked_at=asked_at))

    def _ask(self, job: Row[Any]) -> str | None:
        tags = {JOB_TAG: str(job.id), ROUND_TAG: str(job.round), PRIORITY_TAG: str(job.priority)}
        name = job.slug or COMMAND
        try:
            return self._dagster.launch(name, tags, traceparent=job.traceparent)
        except DagsterRefused:
            # A pipeline that was made a moment ago is there after a reload.
            why = self._dagster.reload()
        try:
            return self._dagster.launch(name, tags, traceparent=job.traceparent)
        except DagsterRefused as error:
            self._fail(job.id, job.round, why or str(error))
            return None

    def _made_already(self, job: Row[Any]) -> str | None:
        runs = self._dagster.runs_of([str(job.id)]).get(str(job.id), ())
        return next((run.run_id for run in runs if round_of(run.tags) == job.round), None)

    def _followed(self) -> list[Row[Any]]:
        with self._database.transaction() as connection:
            return list(
                connection.execute(
                    select(_jobs)
                    .where(_jobs.c.run_id.is_not(None), _jobs.c.run_ended_at.is_(None))
                    .order_by(_jobs.c.updated_at)
                ).all()
            )

    def _follow(self, job: Row[Any], runs: list[Run]) -> None:
        ended = State(job.status) in TERMINAL
        if not runs:
            self._lost(job)
            return
        run = max(runs, key=lambda run: run.created_at)
        if run.run_id != job.run_id:
            with self._database.transaction() as connection:
                jobs.launched(connection, job.id, job.round, run.run_id)
        if run.status == "FAILURE" and run.will_retry is not False:
            # Dagster begins it again, or has not decided yet.
            return
        if run.status in ("SUCCESS", "FAILURE", "CANCELED"):
            if not ended:
                self._end(job, run)
            self._forget(job.id)
        elif job.status == State.CANCELLED:
            # One that does not hear it has lost its process.
            silent = datetime.now(UTC) - job.updated_at > LOST_AFTER
            self._dagster.terminate(run.run_id, at_once=silent)
        elif job.by_dagster and run.status == "STARTED":
            self._told(job, State.RUNNING)

    def _end(self, job: Row[Any], run: Run) -> None:
        if run.status == "CANCELED":
            with self._database.transaction() as connection:
                jobs.interrupt(connection, job.id, job.round)
        elif run.status == "FAILURE":
            self._fail(job.id, job.round, self._dagster.failure(run.run_id) or "its run failed")
        elif job.by_dagster:
            self._told(job, State.SUCCESS)
        else:
            self._fail(job.id, job.round, "its run ended before its stages did")

    def _lost(self, job: Row[Any]) -> None:
        if datetime.now(UTC) - job.updated_at < LOST_AFTER:
            return
        if State(job.status) in TERMINAL:
            self._forget(job.id)
            return
        log.warning("Dagster knows nothing of run %s: asking for another", job.run_id)
        with self._database.transaction() as connection:
            connection.execute(
                update(_jobs)
                .where(_jobs.c.id == job.id, _jobs.c.run_id == job.run_id)
                .values(run_id=None, asked_at=None)
            )

    def _told(self, job: Row[Any], status: State) -> None:
        with self._database.transaction() as connection:
            jobs.by_dagster(connection, job.id, job.round, status, "")

    def _fail(self, job_id: UUID, round_: int, message: str) -> None:
        with self._database.transaction() as connection:
            jobs.fail(connection, job_id, round_, Reason.RUN_FAILED, message)

    def _forget(self, job_id: UUID) -> None:
        with self._database.transaction() as connection:
            connection.execute(
                update(_jobs).where(_jobs.c.id == job_id).values(run_ended_at=func.clock_timestamp())
            )
