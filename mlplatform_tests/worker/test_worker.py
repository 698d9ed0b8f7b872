"""Workers as processes: registered, drained, stopped, killed, cut off."""

from __future__ import annotations

import os
import random
import signal
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from mlplatform.io.control_plane import events, executions, queue, tables, workers
from mlplatform.io.control_plane.database import Database, DatabaseUnreachable
from mlplatform.local.directory import StackDirectory
from mlplatform.local.stack import RunningStack
from mlplatform_tests.io.control_plane.histories import check
from mlplatform_tests.local.processes import descendants, eventually, lives, mlplatform, program
from mlplatform_tests.services.proxy import Proxy
from mlplatform_tests.worker.mayhem import mayhem
from mlplatform_tests.worker.plane import PYTHON, STUBBORN, TIMEOUT_SECONDS, Plane, WorkerProcess, all_dead

# After a worker's time-out, until whoever places has looked.
SOON = 2.0
# On a machine that is busy (else it is some hundredths of a second), and before its time-out would do it.
AT_ONCE = 0.8 * TIMEOUT_SECONDS
# Long before a heartbeat would find it: a quarter of the time-out.
PATIENT = ("--timeout-seconds", "400")
AT_A_WORD = 5.0


@contextmanager
def ended_after(proxy: Proxy) -> Iterator[None]:
    try:
        yield
    finally:
        proxy.end()


def id_of(worker: WorkerProcess) -> uuid.UUID:
    assert worker.row
    return worker.row["id"]


def test_a_worker_is_there_until_it_has_drained(control_plane: Plane) -> None:
    said = ("--cpu-m", "500", "--memory-mb", "64", "--gpu", "1", "--feature", "a", "--feature", "b")
    with control_plane.worker("w", *said, "--slots", "2") as worker:
        row = worker.row
        assert row is not None
        there = row["capabilities"]
        assert (there["cpu_m"], there["memory_mb"], there["gpu"]) == (500, 64, 1)
        assert sorted(there["features"]) == ["a", "b"]
        assert (row["slots"], row["status"], row["listens"]) == (2, "Available", True)
        jobs = [control_plane.job("sh", "-c", f"echo begun; sleep 1; exit {code}") for code in (0, 3)]
        for job in jobs:
            assert control_plane.said(job) == "begun"
        assert worker.status == "Running"
        later = control_plane.job("true", features=["a"])
        assert worker.end() == 0
        assert [control_plane.status(job) for job in jobs] == ["Success", "Failed"]
        assert control_plane.status(later) == "Pending"
        assert worker.status == "Terminated"
        ended = [line for line in worker.lines() if line["message"].startswith("ended: ")]
        assert {line["service"] for line in ended} == {"worker"}
        assert len({line["execution_id"] for line in ended}) == 2


def test_a_worker_that_is_told_twice_ends_at_once_and_its_job_goes_elsewhere(control_plane: Plane) -> None:
    with control_plane.worker("a") as worker:
        job = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(job)
        worker.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: worker.status == "Draining")
        assert all(lives(int(each)) for each in processes.split())
        assert worker.end() == 0
        all_dead(processes, AT_ONCE)
        assert [each["status"] for each in control_plane.attempts(job)] == ["Failed", "Pending"]


def test_a_worker_heeds_what_it_is_told_over_the_api(control_plane: Plane) -> None:
    database = control_plane.database
    with control_plane.worker("a") as drained:
        job = control_plane.job("sh", "-c", "echo begun; sleep 1")
        control_plane.said(job)
        with database.transaction() as connection:
            workers.drain(connection, id_of(drained))
        assert drained.wait() == 0
        assert control_plane.status(job) == "Success"
    with control_plane.worker("b") as stopped:
        job = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(job)
        workers.stop(database, id_of(stopped))
        assert all_dead(processes) < TIMEOUT_SECONDS
        assert stopped.wait() == 0


def test_what_is_cancelled_is_dead_at_once(control_plane: Plane) -> None:
    proxy = Proxy(control_plane.settings.database_url)
    away = {"MLPLATFORM_DATABASE_URL": proxy.url}
    with ended_after(proxy), control_plane.worker("a", *PATIENT, **away) as worker:
        # Too short for anything but what listens, which tries again after a second.
        with proxy.cut():
            time.sleep(0.3)
        time.sleep(1.5)
        job = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(job)
        control_plane.cancel(job)
        assert all_dead(processes) < AT_A_WORD
        assert control_plane.attempts(job)[0]["status"] == "Cancelled"
        check(control_plane.database, job)
        assert eventually(lambda: worker.status == "Available")
        assert control_plane.ended(control_plane.job("true"))["status"] == "Success"


def test_a_worker_without_tables_says_who_makes_them(stack: RunningStack) -> None:
    schema = {"MLPLATFORM_CONTROL_PLANE_SCHEMA": f"none_{uuid.uuid4().hex}"}
    said = mlplatform(stack.data_directory, "worker", "start", **schema)
    assert said.returncode == 1
    assert "`mlplatform serve api` of this release makes the tables: start it first" in said.stderr


def test_a_killed_worker_takes_its_commands_with_it_and_is_replaced_once(control_plane: Plane) -> None:
    with control_plane.worker("a") as first:
        job = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(job)
        with control_plane.worker("b") as second:
            first.kill()
            killed = time.monotonic()
            assert all_dead(processes) < AT_ONCE
            assert eventually(lambda: len(control_plane.attempts(job)) == 2)
            assert time.monotonic() - killed < TIMEOUT_SECONDS + SOON
            processes = control_plane.said(job)
            lost, again = control_plane.attempts(job)
            assert (lost["status"], lost["reason"]) == ("Failed", "worker_lost")
            assert again["worker_id"] == id_of(second)
            second.kill()
            last = control_plane.ended(job)
            all_dead(processes, AT_ONCE)
            assert (last["attempt"], last["status"], last["reason"]) == (2, "Failed", "worker_lost")
            assert control_plane.status(job) == "Failed"
            check(control_plane.database, job)


def test_what_a_zombie_says_changes_nothing(control_plane: Plane, tmp_path: Path) -> None:
    """One command ends while its worker is stopped, and has more to say; another would run on."""
    waits = f"until test -e {tmp_path}/go; do sleep 0.02; done"
    once = f"if mkdir {tmp_path}/once 2>/dev/null; then echo begun; {waits}; echo late; else echo second; fi"
    with control_plane.worker("a") as zombie:
        ended = control_plane.job("sh", "-c", once)
        running = control_plane.job(*PYTHON, STUBBORN)
        assert control_plane.said(ended) == "begun"
        processes = control_plane.said(running)
        with control_plane.worker("b", "--slots", "2"):
            zombie.stop()
            (tmp_path / "go").touch()
            # Though nobody is there who would.
            assert all_dead(processes) < TIMEOUT_SECONDS + AT_ONCE
            last = control_plane.ended(ended)
            assert control_plane.said(running, 1)
            zombie.go_on()
            assert eventually(lambda: zombie.status == "Available")
            # It takes work again, as if nothing had been.
            others = [control_plane.job("sleep", "0.5") for _ in range(3)]
            who = {control_plane.ended(other)["worker_id"] for other in others}
            assert id_of(zombie) in who

            first, second = control_plane.begun(ended)
            assert (first["status"], first["reason"], first["exit_code"]) == ("Failed", "worker_lost", None)
            assert control_plane.lines(first) == [("stdout", "begun")]
            assert second == last
            assert second["status"] == "Success"
            assert control_plane.lines(second) == [("stdout", "second")]
            assert [each["status"] for each in control_plane.begun(running)] == ["Failed", "Running"]
            for job in (ended, running, *others):
                check(control_plane.database, job)


def test_a_job_outlives_the_database(control_plane: Plane, stack: RunningStack) -> None:
    proxy = Proxy(control_plane.settings.database_url)
    away = {"MLPLATFORM_DATABASE_URL": proxy.url}
    with ended_after(proxy), control_plane.worker("a", *PATIENT, **away) as worker:
        job = control_plane.job("sh", "-c", "for i in $(seq 60); do echo $i; sleep 0.1; done")
        assert control_plane.said(job) == "1"
        supervisor = StackDirectory(stack.data_directory).supervisor()
        assert supervisor
        servers = {program(pid): pid for pid in reversed(descendants(supervisor))}
        # For longer than the queue, and the pulse, leave it alone.
        with proxy.cut():
            os.kill(servers["postgres"], signal.SIGKILL)
            assert eventually(lambda: not lives(servers["postgres"]))
            assert eventually(control_plane.answers)
            time.sleep(3.5)
        last = control_plane.ended(job)
        assert (last["attempt"], last["status"]) == (1, "Success")
        assert control_plane.lines(last) == [("stdout", str(number)) for number in range(1, 61)]
        # It hears of new ones, and of what is cancelled, as before.
        again = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(again)
        control_plane.cancel(again)
        assert all_dead(processes) < AT_A_WORD
        assert worker.end() == 0


def test_a_worker_that_is_stopped_in_a_transaction_holds_up_nobody(
    control_plane: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The events of all jobs wait for one lock: whoever has it and says nothing more is cut off."""
    monkeypatch.setattr("mlplatform.io.control_plane.database.IDLE_SECONDS", 1)
    stopped = Database(control_plane.settings.database_url, control_plane.database.schema)

    took = []

    def transaction() -> None:
        with stopped.transaction() as connection:
            events.write(connection, "test", {})
            began = time.monotonic()
            assert control_plane.ended(control_plane.job("true"))["status"] == "Success"
            took.append(time.monotonic() - began)
            events.write(connection, "test", {})

    with control_plane.worker("a"), pytest.raises(DatabaseUnreachable):
        transaction()
    assert 0.5 < took[0] < 3
    stopped.close()


def test_what_a_worker_has_and_does_not_run_it_gives_back(control_plane: Plane) -> None:
    """Its queue's entry was lost; nobody else would find out as long as the worker lives."""
    with control_plane.worker("a") as worker:
        job = control_plane.job("true", features=["none"])
        [waiting] = control_plane.attempts(job)
        with control_plane.database.transaction() as connection:
            given = executions.schedule(connection, waiting["id"], id_of(worker))
            assert given
            queue.withdraw(connection, given.queue_entry)
        assert eventually(lambda: control_plane.attempts(job)[0]["status"] == "Failed", TIMEOUT_SECONDS)
        assert [each["reason"] for each in control_plane.attempts(job)] == ["not_started", None]


def test_a_worker_ends_what_it_lost_also_if_nobody_tells_it(control_plane: Plane) -> None:
    with control_plane.worker("a", "--timeout-seconds", "8"):
        job = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(job)
        with control_plane.database.transaction() as connection:
            connection.execute(tables.executions.update().values(queue_entry=None))
        control_plane.cancel(job)
        # Its keeper would end it too, when the last heartbeat that held the lease is as old as the time-out.
        assert all_dead(processes) < 5
        assert control_plane.ended(control_plane.job("true"))["status"] == "Success"


def test_a_worker_that_is_cut_off_ends_what_it_runs_and_comes_back(control_plane: Plane) -> None:
    proxy = Proxy(control_plane.settings.database_url)
    with ended_after(proxy), control_plane.worker("a", MLPLATFORM_DATABASE_URL=proxy.url) as worker:
        job = control_plane.job(*PYTHON, STUBBORN)
        processes = control_plane.said(job)
        with proxy.cut():
            assert all_dead(processes) < TIMEOUT_SECONDS + AT_ONCE
            assert eventually(lambda: worker.status == "Unhealthy")
        assert control_plane.said(job, 1)
        assert [each["status"] for each in control_plane.begun(job)] == ["Failed", "Running"]
        check(control_plane.database, job)


def test_of_many_jobs_each_ends_once_whatever_befalls_the_workers(
    control_plane: Plane, tmp_path: Path
) -> None:
    assert mayhem(control_plane, tmp_path, jobs=30, workers=3, seed=random.randrange(2**32)) > 0
