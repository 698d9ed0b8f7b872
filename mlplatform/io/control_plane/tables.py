"""The tables of the control plane. The migrations make them; a test holds the two against each other."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    PrimaryKeyConstraint,
    Table,
    Text,
    UniqueConstraint,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

METADATA = MetaData()


def _id() -> Column[Any]:
    return Column("id", Uuid, primary_key=True)


def _at(name: str, *, now: bool = False) -> Column[Any]:
    if now:
        # Of the statement, not of the transaction: what waited for a lock happened when it had it.
        return Column(name, DateTime(timezone=True), nullable=False, server_default=func.clock_timestamp())
    return Column(name, DateTime(timezone=True))


def _json(name: str, default: str = "{}") -> Column[Any]:
    return Column(name, JSONB, nullable=False, server_default=text(f"'{default}'"))


pipelines = Table(
    "pipelines",
    METADATA,
    _id(),
    Column("name", Text, nullable=False),
    # What Dagster calls its job: of each pipeline there ever was, another one.
    Column("slug", Text, nullable=False, unique=True),
    # A PipelineSpec.
    _json("spec"),
    Column("version", Integer, nullable=False, server_default=text("1")),
    Column("created_by", Text, nullable=False, server_default=text("''")),
    _at("created_at", now=True),
    _at("updated_at", now=True),
    _at("deleted_at"),
    Index("pipelines_in_order", "created_at", "id"),
)

schedules = Table(
    "schedules",
    METADATA,
    _id(),
    Column("name", Text, nullable=False),
    Column("slug", Text, nullable=False, unique=True),
    Column("pipeline_id", Uuid, ForeignKey("pipelines.id")),
    # A JobSpec, where it is not a pipeline that is run.
    Column("spec", JSONB),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    Column("cron", Text),
    Column("timezone", Text, nullable=False, server_default=text("'UTC'")),
    # One-off.
    _at("due_at"),
    _at("done_at"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    # A trigger of its pipeline: it comes and goes with it.
    Column("declared", Boolean, nullable=False, server_default=text("false")),
    Column("created_by", Text, nullable=False, server_default=text("''")),
    _at("created_at", now=True),
    _at("updated_at", now=True),
    _at("deleted_at"),
    Index("schedules_in_order", "created_at", "id"),
)

jobs = Table(
    "jobs",
    METADATA,
    _id(),
    Column("name", Text, nullable=False),
    Column("pipeline_id", Uuid, ForeignKey("pipelines.id")),
    # A JobSpec, where it is not a pipeline that is run.
    Column("spec", JSONB),
    # Dagster runs the steps itself, and alone knows how they ended.
    Column("by_dagster", Boolean, nullable=False, server_default=text("false")),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("message", Text),
    Column("priority", Integer, nullable=False, server_default=text("0")),
    # Counts how often it was asked for: a retry by hand begins another round.
    Column("round", Integer, nullable=False, server_default=text("1")),
    # The run of this round.
    Column("run_id", Text),
    # When Dagster was first asked for a run, which it may have made without our having heard of it.
    _at("asked_at"),
    # When that run was seen to have ended, after which nobody looks at it.
    _at("run_ended_at"),
    Column("schedule_id", Uuid, ForeignKey("schedules.id")),
    _at("scheduled_for"),
    Column("traceparent", Text),
    Column("created_by", Text, nullable=False, server_default=text("''")),
    # Number of its newest event.
    Column("sequence", Integer, nullable=False, server_default=text("0")),
    _at("created_at", now=True),
    _at("updated_at", now=True),
    _at("scheduled_at"),
    _at("started_at"),
    _at("finished_at"),
    UniqueConstraint("schedule_id", "scheduled_for", name="jobs_one_for_each_time"),
    Index("jobs_in_order", "created_at", "id"),
    Index("jobs_by_status", "status", "created_at", "id"),
    Index("jobs_by_pipeline", "pipeline_id", "created_at", "id"),
    Index("jobs_by_run", "run_id"),
    Index("jobs_by_end", "finished_at"),
    Index(
        "jobs_to_launch",
        "priority",
        "created_at",
        postgresql_where=text("run_id IS NULL AND status NOT IN ('Success', 'Failed', 'Cancelled')"),
    ),
    Index(
        "jobs_to_follow",
        "id",
        postgresql_where=text("run_id IS NOT NULL AND run_ended_at IS NULL"),
    ),
)

workers = Table(
    "workers",
    METADATA,
    _id(),
    Column("name", Text, nullable=False),
    Column("type", Text, nullable=False, server_default=text("'subprocess'")),
    Column("status", Text, nullable=False),
    _json("capabilities"),
    # Commands at once.
    Column("slots", Integer, nullable=False, server_default=text("1")),
    # Whether it is a process that takes work, and not only one that was told of over HTTP.
    Column("listens", Boolean, nullable=False, server_default=text("false")),
    Column("timeout_seconds", Integer, nullable=False, server_default=text("30")),
    Column("host", Text, nullable=False, server_default=text("''")),
    Column("version", Text, nullable=False, server_default=text("''")),
    Column("created_by", Text, nullable=False, server_default=text("''")),
    _at("registered_at", now=True),
    _at("last_heartbeat", now=True),
    _at("stopped_at"),
    Index("workers_in_order", "registered_at", "id"),
    Index("workers_alive", "status", postgresql_where=text("status NOT IN ('Terminated', 'Failed')")),
)

executions = Table(
    "executions",
    METADATA,
    _id(),
    Column("job_id", Uuid, ForeignKey("jobs.id"), nullable=False),
    Column("stage", Text, nullable=False),
    # Of the stage in its job, from 0.
    Column("position", Integer, nullable=False, server_default=text("0")),
    # From 1, over all rounds of the job.
    Column("attempt", Integer, nullable=False, server_default=text("1")),
    Column("round", Integer, nullable=False, server_default=text("1")),
    # The JobSpec that is run.
    _json("spec"),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("message", Text),
    Column("exit_code", Integer),
    # Variables by which the command can report to Dagster; made by the step that released it.
    _json("bootstrap"),
    Column("worker_id", Uuid, ForeignKey("workers.id")),
    # Whoever shows it may write about this execution; another one, or none, fences whoever had it.
    Column("lease", Uuid),
    # Of the queue's entry that brings it to its worker.
    Column("queue_entry", BigInteger),
    # The worker that was lost with the attempt before.
    Column("lost_by", Uuid),
    _at("created_at", now=True),
    _at("released_at"),
    _at("scheduled_at"),
    _at("started_at"),
    _at("finished_at"),
    UniqueConstraint("job_id", "stage", "attempt", name="executions_one_of_each_attempt"),
    Index("executions_in_order", "created_at", "id"),
    Index(
        "executions_waiting",
        "released_at",
        postgresql_where=text("status = 'Pending' AND released_at IS NOT NULL"),
    ),
    Index("executions_of_workers", "worker_id", postgresql_where=text("status IN ('Scheduled', 'Running')")),
)

log_lines = Table(
    "log_lines",
    METADATA,
    Column("execution_id", Uuid, ForeignKey("executions.id", ondelete="CASCADE"), nullable=False),
    # Dense, from 0.
    Column("number", Integer, nullable=False),
    Column("at", DateTime(timezone=True), nullable=False),
    Column("stream", Text, nullable=False),
    Column("text", Text, nullable=False),
    PrimaryKeyConstraint("execution_id", "number"),
)

artefacts = Table(
    "artefacts",
    METADATA,
    Column("execution_id", Uuid, ForeignKey("executions.id", ondelete="CASCADE"), nullable=False),
    # Below the folder that the command was given.
    Column("path", Text, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("sha256", Text, nullable=False),
    Column("key", Text, nullable=False),
    PrimaryKeyConstraint("execution_id", "path"),
)

events = Table(
    "events",
    METADATA,
    # In the order in which they were kept: whoever has seen one has been told of all before it.
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("event_id", Uuid, nullable=False, server_default=func.gen_random_uuid()),
    Column("job_id", Uuid),
    # Dense for each job, from 1.
    Column("sequence", Integer),
    Column("type", Text, nullable=False),
    _json("data"),
    _at("at", now=True),
    UniqueConstraint("job_id", "sequence", name="events_of_a_job"),
)

# Their secrets are in no table: they are made of a key and what is here.
webhooks = Table(
    "webhooks",
    METADATA,
    _id(),
    Column("url", Text, nullable=False),
    # Types of events, also `job.*`; none: all.
    Column("types", ARRAY(Text), nullable=False),
    # Counts how often the secret was changed.
    Column("secret_number", Integer, nullable=False, server_default=text("1")),
    # Until then the secret before signs too.
    _at("both_secrets_until"),
    # Id of the newest event that was delivered, or passed over.
    Column("position", BigInteger, nullable=False),
    # Since the last success.
    Column("failures", Integer, nullable=False, server_default=text("0")),
    _at("failing_since"),
    Column("trouble", Text),
    _at("next_attempt_at"),
    _at("delivered_at"),
    Column("paused", Boolean, nullable=False, server_default=text("false")),
    Column("created_by", Text, nullable=False, server_default=text("''")),
    _at("created_at", now=True),
    _at("updated_at", now=True),
    Index("webhooks_in_order", "created_at", "id"),
)

idempotency_keys = Table(
    "idempotency_keys",
    METADATA,
    Column("principal", Text, nullable=False),
    Column("key", Text, nullable=False),
    # Of the method, the path and the body.
    Column("digest", LargeBinary, nullable=False),
    Column("status", Integer, nullable=False),
    Column("body", JSONB, nullable=False),
    _at("created_at", now=True),
    PrimaryKeyConstraint("principal", "key"),
    Index("idempotency_keys_by_age", "created_at"),
)

users = Table(
    "users",
    METADATA,
    _id(),
    Column("name", Text, nullable=False, unique=True),
    # By argon2.
    Column("password_hash", Text, nullable=False),
    Column("scopes", ARRAY(Text), nullable=False),
    Column("disabled", Boolean, nullable=False, server_default=text("false")),
    _at("created_at", now=True),
)

# A token is good as long as its session is here: to delete one ends all tokens of it.
sessions = Table(
    "sessions",
    METADATA,
    _id(),
    Column("user_id", Uuid, ForeignKey("users.id", ondelete="CASCADE"), nullable=False),
    # Of the service; of a person who logged in, none.
    Column("service", Text),
    # Of its tokens, as far as the user still has them.
    Column("scopes", ARRAY(Text), nullable=False),
    _at("created_at", now=True),
    Column("expires_at", DateTime(timezone=True), nullable=False),
    Index("sessions_of_users", "user_id"),
    Index("sessions_by_end", "expires_at"),
)

refresh_tokens = Table(
    "refresh_tokens",
    METADATA,
    # SHA-256 of the token, which is random itself.
    Column("digest", LargeBinary, primary_key=True),
    Column("session_id", Uuid, ForeignKey("sessions.id", ondelete="CASCADE"), nullable=False),
    # Kept then, so that who shows it again is found out.
    Column("used", Boolean, nullable=False, server_default=text("false")),
    Index("refresh_tokens_of_sessions", "session_id"),
)

audit_log = Table(
    "audit_log",
    METADATA,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    _at("at", now=True),
    # Who; no reference, since the row outlives them.
    Column("principal_id", Text, nullable=False),
    Column("principal", Text, nullable=False),
    Column("action", Text, nullable=False),
    Column("target", Text, nullable=False),
    # success or refused
    Column("outcome", Text, nullable=False),
    Column("request_id", Text, nullable=False),
    Column("address", Text, nullable=False),
)
