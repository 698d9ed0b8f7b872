"""Whether what is kept of a job is a history that may be."""

from __future__ import annotations

import itertools
import uuid
from collections import Counter, defaultdict

from mlplatform.domain.jobs.states import AFTER, JOB_AFTER, TERMINAL, Reason, State
from mlplatform.io.control_plane import events, executions, jobs
from mlplatform.io.control_plane.database import Database


def check(database: Database, job_id: uuid.UUID) -> None:
    """Everything that holds for each job at each time, whatever was done to it and by how many."""
    with database.transaction() as connection:
        job = jobs.get(connection, job_id)
        attempts = executions.executions_of(connection, job_id)
        told = events.after(connection, 0, limit=10_000, job_id=job_id)

    assert [event["sequence"] for event in told] == list(range(1, len(told) + 1))
    assert job["sequence"] == len(told)

    steps: dict[str, list[State]] = defaultdict(list)
    ends: dict[int, list[State]] = defaultdict(list)
    begun: Counter[tuple[str, int]] = Counter()
    succeeded: set[str] = set()
    round_of = {str(attempt["id"]): attempt["round"] for attempt in attempts}
    for event in told:
        data, status = event["data"], State(event["data"]["status"])
        if event["type"].startswith("job."):
            assert event["type"] == f"job.{status.lower()}"
            steps["job"].append(status)
            if status in TERMINAL:
                ends[data["round"]].append(status)
            continue
        assert event["type"] == f"execution.{status.lower()}"
        steps[data["execution_id"]].append(status)
        if status is State.RUNNING:
            assert data["stage"] not in succeeded, "a stage was begun again after its success"
            begun[data["stage"], round_of[data["execution_id"]]] += 1
        if status is State.SUCCESS:
            assert data["stage"] not in succeeded
            succeeded.add(data["stage"])

    follows(steps.pop("job"), JOB_AFTER, job["status"], told=State.PENDING)
    for attempt in attempts:
        follows([State.PENDING, *steps.pop(str(attempt["id"]), [])], AFTER, attempt["status"])
        assert (attempt["lease"] is not None) == (attempt["status"] in (State.SCHEDULED, State.RUNNING))
    assert not steps
    # A job that failed may be given up in the same round; nothing else follows an end.
    for states in ends.values():
        assert len(states) == 1 or states == [State.FAILED, State.CANCELLED]

    newest = {attempt["stage"]: attempt for attempt in attempts}
    open_ = Counter(attempt["stage"] for attempt in attempts if attempt["status"] not in TERMINAL)
    assert all(number == 1 for number in open_.values())
    if job["status"] in TERMINAL:
        assert not open_
    all_succeeded = all(attempt["status"] == State.SUCCESS for attempt in newest.values())
    assert (job["status"] == State.SUCCESS) == all_succeeded
    numbers: dict[str, list[int]] = defaultdict(list)
    reasons: Counter[tuple[str, int, str]] = Counter()
    for attempt in attempts:
        numbers[attempt["stage"]].append(attempt["attempt"])
        reasons[attempt["stage"], attempt["round"], attempt["reason"]] += 1
    assert all(there == list(range(1, len(there) + 1)) for there in numbers.values())
    for (stage, round_), times in begun.items():
        retries = newest[stage]["spec"]["retries"]
        assert times <= retries + 1 + executions.REPLACEMENTS
        failed = reasons[stage, round_, Reason.EXIT_CODE] + reasons[stage, round_, Reason.TIMED_OUT]
        assert failed <= retries + 1
        lost = reasons[stage, round_, Reason.WORKER_LOST]
        assert lost <= executions.REPLACEMENTS + 1


def follows(
    states: list[State], after: dict[State, frozenset[State]], now: str, told: State | None = None
) -> None:
    """Each state may follow the one before it, and the last is that of now."""
    assert told is None or states[0] == told
    for earlier, later in itertools.pairwise(states):
        assert later in after[earlier], f"{later} after {earlier}"
    assert states[-1] == now
