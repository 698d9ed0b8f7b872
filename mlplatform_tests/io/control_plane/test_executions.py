from __future__ import annotations

import random
import threading
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from sqlalchemy import Connection, select

from mlplatform.domain.jobs.specs import Capabilities, PipelineSpec
from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import events, executions, jobs, log_lines, tables, workers
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.control_plane.job_rows import Conflict
from mlplatform.io.control_plane.log_lines import Line
from mlplatform_tests.io.control_plane.histories import check

SLOTS = 2
WORDS = ("finish", "lose", "start", "write")
OUTCOMES = (
    (State.SUCCESS, 0, None),
    (State.FAILED, 1, Reason.EXIT_CODE),
    (State.FAILED, None, Reason.TIMED_OUT),
    (State.FAILED, None, Reason.NOT_STARTED),
)


def pipeline(connection: Connection, *retries: int) -> uuid.UUID:
    """Stages s0, s1… with so many retries, each after the one before it."""
    spec = PipelineSpec.model_validate(
        {
            "name": "etl",
            "stages": [
                {
                    "name": f"s{number}",
                    "commands": ["true"],
                    "retries": allowed,
                    "dependencies": [f"s{number - 1}"] if number else [],
                }
                for number, allowed in enumerate(retries)
            ],
        }
    )
    id_ = uuid.uuid4()
    row = {"id": id_, "name": "etl", "slug": id_.hex, "spec": spec.model_dump(mode="json")}
    connection.execute(tables.pipelines.insert().values(row))
    return id_


def job_of(database: Database, *retries: int) -> uuid.UUID:
    with database.transaction() as connection:
        return jobs.create(connection, jobs.NewJob(pipeline_id=pipeline(connection, *retries)))["id"]


def worker_of(database: Database, slots: int = SLOTS) -> uuid.UUID:
    with database.transaction() as connection:
        return workers.register(connection, "w", Capabilities(), slots=slots, listens=True)["id"]


def running(database: Database, *retries: int) -> tuple[uuid.UUID, Any]:
    """A job whose first stage has begun."""
    worker = worker_of(database)
    job_id = job_of(database, *retries)
    with database.transaction() as connection:
        waiting = executions.release(connection, job_id, "s0")
        given = executions.schedule(connection, waiting.id, worker)
        assert given is not None
        return job_id, executions.start(connection, given.id, given.lease)


def status(database: Database, job_id: uuid.UUID) -> str:
    with database.transaction() as connection:
        return jobs.get(connection, job_id)["status"]


class Moves:
    """What may be done to jobs, with words of whoever had an execution at any time."""

    def __init__(self, database: Database, jobs_: list[uuid.UUID], workers_: list[uuid.UUID]) -> None:
        self.database = database
        self.jobs = jobs_
        self.workers = workers_
        # (execution, lease, worker), also of long ago.
        self.given: list[tuple[uuid.UUID, uuid.UUID, uuid.UUID]] = []

    def attempt(self, move: Callable[..., Any], *arguments: Any) -> Any:
        """None if it was refused, as it may be; everything else is a defect."""
        try:
            with self.database.transaction() as connection:
                return move(connection, *arguments)
        except (LeaseLost, Conflict):
            return None

    def release(self, job: uuid.UUID, stage: str) -> None:
        self.attempt(executions.release, job, stage, {"VARIABLE": "value"})

    def schedule(self, job: uuid.UUID, worker: uuid.UUID, stage: str | None = None) -> None:
        with self.database.transaction() as connection:
            waiting = executions.executions_of(connection, job)
        for execution in waiting:
            if stage in (None, execution["stage"]) and (
                given := self.attempt(executions.schedule, execution["id"], worker)
            ):
                self.given.append((given.id, given.lease, worker))
                return

    def say(self, given: tuple[uuid.UUID, uuid.UUID, uuid.UUID], word: str, outcome: int) -> Any:
        execution, lease, worker = given
        if word == "start":
            return self.attempt(executions.start, execution, lease)
        if word == "finish":
            ended, code, reason = OUTCOMES[outcome]
            return self.attempt(executions.finish, execution, lease, ended, code, reason, "so it ended")
        if word == "lose":
            return self.attempt(executions.lose, execution, worker, "silent")
        line = Line(random.randrange(2**31), datetime.now(UTC), "stdout", "text\x00")
        return self.attempt(log_lines.append, execution, lease, [line])

    def job(self, job: uuid.UUID, word: str, round_: int) -> None:
        if word == "cancel":
            self.attempt(jobs.cancel, job)
        elif word == "retry":
            self.attempt(jobs.retry, job)
        elif word == "fail":
            self.attempt(jobs.fail, job, round_, Reason.RUN_FAILED, "Dagster's run failed")
        else:
            self.attempt(jobs.launched, job, round_, uuid.uuid4().hex)


class OneJob(RuleBasedStateMachine):
    database: Database

    @initialize(retries=st.lists(st.integers(0, 2), min_size=1, max_size=3))
    def begin(self, retries: list[int]) -> None:
        self.stages = len(retries)
        # Of each stage, what was given last.
        self.newest: dict[str, int] = {}
        self.id = job_of(self.database, *retries)
        self.moves = Moves(self.database, [self.id], [worker_of(self.database), worker_of(self.database)])

    @rule(
        number=st.integers(0, 2),
        worker=st.integers(0, 1),
        words=st.lists(st.sampled_from(WORDS), min_size=1, max_size=3),
        outcome=st.integers(0, len(OUTCOMES) - 1),
        again=st.booleans(),
    )
    def run(self, number: int, worker: int, words: list[str], outcome: int, again: bool) -> None:
        """As it should be, until the words: a stage is begun, if it has not, and something is said of it."""
        if again:
            self.moves.job(self.id, "retry", 0)
        stage = f"s{number % self.stages}"
        before = len(self.moves.given)
        self.moves.release(self.id, stage)
        self.moves.schedule(self.id, self.moves.workers[worker], stage)
        if len(self.moves.given) > before:
            self.newest[stage] = before
            self.say(before, "start", outcome)
        for word in words:
            if stage in self.newest:
                self.say(self.newest[stage], word, outcome)

    @rule(stage=st.integers(0, 2), worker=st.integers(0, 1), begun=st.booleans())
    def release(self, stage: int, worker: int, begun: bool) -> None:
        self.moves.release(self.id, f"s{stage % self.stages}")
        if begun:
            self.moves.schedule(self.id, self.moves.workers[worker])

    @rule(
        ago=st.integers(0, 100),
        word=st.sampled_from(WORDS),
        outcome=st.integers(0, len(OUTCOMES) - 1),
    )
    def late_word(self, ago: int, word: str, outcome: int) -> None:
        if self.moves.given:
            # The newest first, which is what Hypothesis tries most.
            self.say(-1 - ago % len(self.moves.given), word, outcome)

    def say(self, which: int, word: str, outcome: int) -> None:
        execution, lease, _ = given = self.moves.given[which]
        before = self._row(execution)
        self.moves.say(given, word, outcome)
        if word != "lose" and before["lease"] != lease:
            assert self._row(execution) == before, "a late word changed something"

    def _row(self, execution: uuid.UUID) -> Any:
        with self.database.transaction() as connection:
            query = select(tables.executions).where(tables.executions.c.id == execution)
            return connection.execute(query).mappings().one()

    @rule(word=st.sampled_from(["launched", "retry", "fail", "cancel"]), ago=st.integers(0, 1))
    def job_is_moved(self, word: str, ago: int) -> None:
        with self.database.transaction() as connection:
            before = jobs.get(connection, self.id)
        self.moves.job(self.id, word, before["round"] - ago)
        if word == "fail" and ago:
            with self.database.transaction() as connection:
                assert jobs.get(connection, self.id) == before

    def teardown(self) -> None:
        # All of it is kept, and so one look at the end sees every step.
        if hasattr(self, "id"):
            check(self.database, self.id)


def test_whatever_is_done_to_a_job_its_history_is_one_that_may_be(database: Database) -> None:
    OneJob.database = database
    run_state_machine_as_test(
        OneJob,
        settings=settings(
            max_examples=30,
            stateful_step_count=25,
            deadline=None,
            derandomize=True,
            suppress_health_check=[HealthCheck.too_slow],
        ),
    )


def test_sixteen_at_once_neither_block_each_other_nor_hide_an_event(database: Database) -> None:
    given = [job_of(database, 1, 2, 0) for _ in range(3)]
    moves = Moves(database, given, [worker_of(database), worker_of(database)])
    seen: list[int] = []
    done = threading.Event()

    def read() -> None:
        last = False
        while not last:
            last = done.is_set()
            with database.transaction() as connection:
                seen.extend(row["id"] for row in events.after(connection, seen[-1] if seen else 0, limit=50))

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(40):
            job = chance.choice(given)
            match chance.randrange(10):
                case 0 | 1:
                    moves.release(job, f"s{chance.randrange(3)}")
                case 2 | 3:
                    moves.schedule(job, chance.choice(moves.workers))
                case 4:
                    word = chance.choice(["retry", "retry", "fail", "launched"])
                    moves.job(job, word, chance.randrange(1, 4))
                case 5:
                    workers.expire(database)
                    moves.attempt(workers.heartbeat, chance.choice(moves.workers))
                case _ if moves.given:
                    word = chance.choice(["start", "finish", "write", "lose"])
                    moves.say(chance.choice(moves.given[-6:]), word, chance.randrange(3))
                case _:
                    pass

    with ThreadPoolExecutor(17) as pool:
        reader = pool.submit(read)
        try:
            for worker in [pool.submit(work, seed) for seed in range(16)]:
                worker.result()
        finally:
            done.set()
        reader.result()
    for job in given:
        check(database, job)
    with database.transaction() as connection:
        everything = list(connection.scalars(select(tables.events.c.id).order_by(tables.events.c.id)))
    assert len(everything) > 50
    # More than one page may be left when all have ended.
    assert seen == everything[: len(seen)]
    assert len(everything) - len(seen) < 50
