"""Keeps small what grows by itself: the files of the tables, and the history of the minute job."""

import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.storage.event_log import SqliteEventLogStorage
from pydantic import Field

from mlplatform.io.stores import TABLES
from mlplatform.resources.stores import Stores

MINUTE_JOB = "online_learning"
BATCH = 100
TIME_BUDGET_SECONDS = 600


class Retention(dg.Config):
    keep_runs_hours: int = Field(default=48, ge=1, description="Older runs of the minute job are deleted.")
    keep_files_hours: int = Field(default=24, ge=1, description="Merged files are kept so long for readers.")


@dg.op(description="Merges the small files that every tick adds, and drops what no reader needs any more.")
def compact_tables(context: dg.OpExecutionContext, config: Retention, stores: Stores) -> None:
    for name in TABLES:
        context.log.info(f"{name}: {stores.table(name).compact(config.keep_files_hours)}")


@dg.op(description="Deletes old runs of the minute job with their events, which Dagster keeps for ever.")
def delete_old_runs(context: dg.OpExecutionContext, config: Retention) -> None:
    instance = context.instance
    old = dg.RunsFilter(
        job_name=MINUTE_JOB,
        statuses=[dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED],
        created_before=datetime.now(UTC) - timedelta(hours=config.keep_runs_hours),
    )
    deleted, until = 0, time.monotonic() + TIME_BUDGET_SECONDS
    while time.monotonic() < until:
        runs = instance.get_runs(old, limit=BATCH, ascending=True)
        for run in runs:
            _delete(instance, run.run_id)
        deleted += len(runs)
        if len(runs) < BATCH:
            break
    context.log.info(f"deleted {deleted} runs of {MINUTE_JOB}")


def _delete(instance: dg.DagsterInstance, run_id: str) -> None:
    """Deletes a run with what `delete_run` leaves: its logs, and on SQLite its file of events."""
    instance.compute_log_manager.delete_logs(prefix=[run_id])
    instance.delete_run(run_id)
    storage = instance.event_log_storage
    if isinstance(storage, SqliteEventLogStorage):
        Path(storage.path_for_shard(run_id)).unlink(missing_ok=True)


@dg.job(description="Compacts the tables and deletes old runs of the minute job.")
def maintenance() -> None:
    compact_tables()
    delete_old_runs()


@dg.schedule(job=maintenance, cron_schedule="17 * * * *", default_status=dg.DefaultScheduleStatus.RUNNING)
def hourly_maintenance() -> dg.RunRequest:
    """Once an hour, off the full one."""
    return dg.RunRequest()
