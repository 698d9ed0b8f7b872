"""A step that lets an execution be run, and follows it to its end: Dagster's part in a stage of a job."""

from __future__ import annotations

import json
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import dagster as dg
from dagster_pipes import PIPES_PROTOCOL_VERSION_FIELD, PipesDefaultMessageWriter

from mlplatform.domain.jobs.states import TERMINAL, State
from mlplatform.errors import PlatformError
from mlplatform.io import tracing
from mlplatform.io.control_plane import executions, jobs, log_lines
from mlplatform.io.control_plane.database import Database, DatabaseUnreachable
from mlplatform.io.control_plane.job_rows import ENDED, Conflict
from mlplatform.io.control_plane.run_tags import JOB_TAG, TRACE_TAG, round_of
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

# A notification may be lost with its connection.
LOOK_SECONDS = 5.0
RECONNECT_SECONDS = 2.0
# The database counts the attempts; Dagster is told to try again whenever there is one left.
MOST_ATTEMPTS = 100_000
# Until the run that was told to end interrupts this step.
INTERRUPT_SECONDS = 30.0
LAST_LINES = 5


class Runner(Protocol):
    """Runs executions itself, where there are no workers."""

    def run(self, context: dg.OpExecutionContext, execution: Any, variables: Mapping[str, str]) -> None:
        """To its end, which is in the database when this returns."""
        ...

    def take_over(self, execution: Any) -> None:
        """Ends one that a step began which has died."""
        ...


def follow(
    context: dg.OpExecutionContext,
    database: Database,
    job_id: uuid.UUID,
    stage: str,
    runner: Runner | None = None,
) -> Sequence[Any]:
    """The results that the command reported, once it has succeeded.

    It is a part of the trace of whoever asked for the job, and so is what the command does.

    May be begun again at any time, by the same step or another: whatever runs of the stage is followed from
    its first line, and a stage that has succeeded is not run again.

    Raises:
        dagster.RetryRequested: it failed, and has an attempt left.
        dagster.Failure: it failed, the job has ended, or there is no such job.
    """
    tracing.configure("dagster", Settings.load().traces_endpoint)
    attributes = {"mlplatform.job_id": str(job_id), "dagster.run_id": context.run_id}
    with tracing.span(f"stage {stage}", context.run.tags.get(TRACE_TAG), **attributes) as traceparent:
        try:
            return _follow(context, database, job_id, stage, runner, traceparent)
        finally:
            # The process of a step ends without the interpreter's farewell.
            tracing.flush()


def _follow(
    context: dg.OpExecutionContext,
    database: Database,
    job_id: uuid.UUID,
    stage: str,
    runner: Runner | None,
    traceparent: str | None,
) -> Sequence[Any]:
    # The variable of the W3C's that programs with OpenTelemetry look at.
    trace = {"TRACEPARENT": traceparent} if traceparent else {}
    try:
        while True:
            with dg.open_pipes_session(context, dg.PipesEnvContextInjector(), CommandOutput()) as session:
                variables = {**session.get_bootstrap_env_vars(), **trace}
                execution = _released(database, job_id, stage, variables)
                if runner and execution.status == State.PENDING:
                    runner.run(context, execution, variables)
                elif runner and State(execution.status) not in TERMINAL:
                    runner.take_over(execution)
                ended, last_lines = _followed(context, database, execution.id, session)
            if ended["status"] == State.SUCCESS:
                return session.get_results(metadata=_metadata(ended)) if context.has_assets_def else ()
            if ended["status"] == State.CANCELLED:
                _ended(context, database, job_id, "the job failed with another of its stages")
            if not _begun_again(context, database, ended, last_lines):
                raise dg.RetryRequested(max_retries=MOST_ATTEMPTS)
    except Conflict as error:
        _ended(context, database, job_id, str(error))
    except dg.DagsterExecutionInterruptedError:
        _interrupted(context, database, job_id)
        raise
    except PlatformError as error:
        raise dg.Failure(str(error), allow_retries=False) from error


def _released(database: Database, job_id: uuid.UUID, stage: str, variables: Mapping[str, str]) -> Any:
    while True:
        try:
            with database.transaction() as connection:
                return executions.release(connection, job_id, stage, variables)
        except DatabaseUnreachable:
            time.sleep(RECONNECT_SECONDS)


def _followed(
    context: dg.OpExecutionContext, database: Database, execution_id: uuid.UUID, session: Any
) -> tuple[RowMapping, list[str]]:
    """The execution when it has ended, and its last lines; while the database is away, this waits."""
    position = -1
    last_lines: list[str] = []
    while True:
        try:
            with database.listening(log_lines.CHANNEL, ENDED) as notifications:
                while True:
                    with database.transaction() as connection:
                        execution = executions.get(connection, execution_id)
                        lines = log_lines.after(connection, execution_id, position)
                    for line in lines:
                        _write(context, session.message_handler, line["stream"], line["text"])
                        position = line["number"]
                    last_lines = [*last_lines, *(line["text"] for line in lines)][-LAST_LINES:]
                    if lines:
                        continue
                    if State(execution["status"]) in TERMINAL:
                        return execution, last_lines
                    for heard in notifications.notifies(timeout=LOOK_SECONDS):
                        if heard.payload == str(execution_id):
                            break
        except DatabaseUnreachable as error:
            context.log.warning(f"{error}; the command goes on, and so does this once it is back")
            time.sleep(RECONNECT_SECONDS)


class CommandOutput(dg.PipesMessageReader):
    """Messages of a command that speaks Dagster Pipes are lines of its output."""

    @contextmanager
    def read_messages(self, handler: Any) -> Iterator[dict[str, str]]:
        yield {PipesDefaultMessageWriter.STDIO_KEY: PipesDefaultMessageWriter.STDOUT}
        # Most commands know nothing of Pipes, which is no reason for a warning.
        for method in ("opened", "closed"):
            if not getattr(handler, f"received_{method}_message"):
                handler.handle_message({"method": method, "params": {}})

    @property
    def expected_writer_count(self) -> int:
        # Dagster's own warns that it is a preview, at each step.
        return 1

    def no_messages_debug_text(self) -> str:
        return "Messages are lines of the command's standard output."


def _write(context: dg.OpExecutionContext, handler: Any, stream: str, text: str) -> None:
    if stream == "platform":
        context.log.info(text)
    elif not _is_message(context, handler, text):
        print(text, file=sys.stderr if stream == "stderr" else sys.stdout, flush=True)


def _is_message(context: dg.OpExecutionContext, handler: Any, text: str) -> bool:
    if PIPES_PROTOCOL_VERSION_FIELD not in text:
        return False
    try:
        message = json.loads(text)
        if PIPES_PROTOCOL_VERSION_FIELD not in message:
            return False
        handler.handle_message(message)
    except Exception as error:
        # The command's mistake, which must not end what follows it.
        context.log.warning(f"a message of the command is none of Dagster Pipes: {error}")
        return False
    return True


def _begun_again(
    context: dg.OpExecutionContext, database: Database, ended: RowMapping, last_lines: list[str]
) -> bool:
    """Whether another worker has been given the stage of an execution that failed.

    Raises:
        dagster.Failure: there is no attempt left.
    """
    with database.transaction() as connection:
        job = jobs.get(connection, ended["job_id"])
        newest = executions.newest_attempt(connection, ended["job_id"], ended["stage"])
    if State(job["status"]) in TERMINAL:
        what = ended["message"] or ended["reason"] or "the command failed"
        said = "\n".join(["", "Its last lines:", *last_lines]) if last_lines else ""
        raise dg.Failure(f"{what}{said}", metadata=_metadata(ended), allow_retries=False)
    context.log.warning(f"attempt {ended['attempt']}: {ended['message'] or ended['reason']}")
    return newest.id != ended["id"]


def _metadata(ended: RowMapping) -> dict[str, dg.MetadataValue]:
    metadata: dict[str, dg.MetadataValue] = {
        "execution": dg.MetadataValue.text(str(ended["id"])),
        "attempt": dg.MetadataValue.int(ended["attempt"]),
    }
    if ended["exit_code"] is not None:
        metadata["exit_code"] = dg.MetadataValue.int(ended["exit_code"])
    if ended["started_at"] and ended["finished_at"]:
        seconds = (ended["finished_at"] - ended["started_at"]).total_seconds()
        metadata["seconds"] = dg.MetadataValue.float(seconds)
    return metadata


def _ended(context: dg.OpExecutionContext, database: Database, job_id: uuid.UUID, why: str) -> NoReturn:
    """Ends a step whose job has ended without it."""
    with database.transaction() as connection:
        cancelled = jobs.get(connection, job_id)["status"] == State.CANCELLED
    if cancelled:
        _give_up(context, "the job was cancelled")
    raise dg.Failure(why, allow_retries=False)


def _give_up(context: dg.OpExecutionContext, why: str) -> NoReturn:
    """Ends the run as cancelled, so that Dagit does not show what somebody wanted as a failure."""
    instance = context.instance
    try:
        interrupted = instance.run_launcher.terminate(context.run_id)
    except Exception as error:
        # The process that started this run has died: nobody can interrupt it.
        context.log.warning(f"the run cannot be terminated: {error}")
        interrupted = False
    if interrupted:
        time.sleep(INTERRUPT_SECONDS)
    raise dg.Failure(why, allow_retries=False)


def _interrupted(context: dg.OpExecutionContext, database: Database, job_id: uuid.UUID) -> None:
    """Somebody terminated the run in Dagit, or its process is to end: then it is begun again elsewhere."""
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or run.status not in (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED):
        return
    try:
        with database.transaction() as connection:
            jobs.interrupt(connection, job_id, round_of(run.tags))
    except PlatformError as error:
        # It ended in this moment, or whoever compares runs and jobs will see to it.
        context.log.warning(f"the job was not cancelled: {error}")


def job_of(context: dg.OpExecutionContext) -> uuid.UUID | None:
    """The job that the run was launched for; None if a person started it in Dagit.

    One that was re-executed by hand has the tags of the run before, but is another job.
    """
    tags = context.run.tags
    by_hand = context.run.parent_run_id is not None and "dagster/retry_number" not in tags
    return None if by_hand or JOB_TAG not in tags else uuid.UUID(tags[JOB_TAG])
