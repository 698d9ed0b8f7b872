"""The states of jobs, executions and workers, and which may follow which."""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """Of a job, and of an execution: one attempt to run one stage of a job."""

    PENDING = "Pending"
    SCHEDULED = "Scheduled"
    RUNNING = "Running"
    SUCCESS = "Success"
    FAILED = "Failed"
    CANCELLED = "Cancelled"


TERMINAL = frozenset({State.SUCCESS, State.FAILED, State.CANCELLED})

# What an execution may become. Its end is for ever: a further attempt is another execution.
AFTER = {
    # Not from Pending to Running: whoever runs it was given it first, and holds its lease.
    State.PENDING: frozenset({State.SCHEDULED, State.FAILED, State.CANCELLED}),
    State.SCHEDULED: frozenset({State.RUNNING, State.FAILED, State.CANCELLED}),
    State.RUNNING: frozenset({State.SUCCESS, State.FAILED, State.CANCELLED}),
    State.SUCCESS: frozenset[State](),
    State.FAILED: frozenset[State](),
    State.CANCELLED: frozenset[State](),
}
# A job may be tried again by whoever asks for it, and given up after it has failed.
JOB_AFTER = {
    **AFTER,
    # Without a stage, or where Dagster runs the steps itself.
    State.PENDING: AFTER[State.PENDING] | {State.SUCCESS},
    State.SCHEDULED: AFTER[State.SCHEDULED] | {State.SUCCESS},
    State.FAILED: frozenset({State.PENDING, State.CANCELLED}),
}


class WorkerState(StrEnum):
    """Of a worker: `Available` has nothing to do, `Running` has."""

    CREATING = "Creating"
    AVAILABLE = "Available"
    RUNNING = "Running"
    UNHEALTHY = "Unhealthy"
    DRAINING = "Draining"
    TERMINATED = "Terminated"
    FAILED = "Failed"


# Of these, nothing is heard any more, whatever they say later.
ENDED = frozenset({WorkerState.TERMINATED, WorkerState.FAILED})


class Reason(StrEnum):
    """Why an execution failed."""

    EXIT_CODE = "exit_code"
    TIMED_OUT = "timed_out"
    WORKER_LOST = "worker_lost"
    NOT_STARTED = "not_started"
    ARTEFACTS_LOST = "artefacts_lost"
    RUN_FAILED = "run_failed"
