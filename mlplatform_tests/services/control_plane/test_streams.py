"""Two processes on one database are one: what happens at one is heard at the other, once and in order."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from itertools import islice, repeat
from uuid import UUID, uuid4

import httpx
import pytest

from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import events
from mlplatform.io.control_plane.database import Database
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane import streams
from mlplatform.services.control_plane.app import application
from mlplatform_tests.services.control_plane.listening import Heard, heard
from mlplatform_tests.services.control_plane.secured import PASSWORD, REQUIRED, create_user
from mlplatform_tests.services.control_plane.serving import client_of, command, listening, settings_of
from mlplatform_tests.services.control_plane.test_jobs import (
    EVENTS,
    EXECUTIONS,
    JOBS,
    begin,
    create,
    finish,
    say,
)
from mlplatform_tests.services.processes import Process


@pytest.fixture(scope="module")
def clients(stack: RunningStack, kept_database: Database) -> Iterator[tuple[httpx.Client, httpx.Client]]:
    """Of two processes."""
    with ExitStack() as opened:
        processes = [Process(settings_of(stack, kept_database), "api") for _ in range(2)]
        for process in processes:
            process.start()
            opened.callback(process.kill)
        for process in processes:
            process.wait_until_ready()
        one, other = (opened.enter_context(client_of(process.address)) for process in processes)
        yield one, other


def test_a_job_made_at_one_is_followed_at_the_other(
    clients: tuple[httpx.Client, httpx.Client], kept_database: Database
) -> None:
    one, other = clients
    job_id = create(one)["id"]
    kinds: list[str] = []
    times: list[float] = []

    def listen() -> None:
        for event in heard(other, f"{JOBS}/{job_id}/events/stream"):
            kinds.append(event.kind)
            times.append(time.monotonic())

    listener = threading.Thread(target=listen)
    listener.start()
    execution_id, lease = begin(kept_database, job_id)
    finish(kept_database, execution_id, lease)
    ended = time.monotonic()
    listener.join(timeout=10)
    assert not listener.is_alive()
    assert kinds == [
        "job.pending",
        "execution.scheduled",
        "execution.running",
        "job.scheduled",
        "job.running",
        "execution.success",
        "job.success",
        "end",
    ]
    # Rung for, and not found by looking now and then.
    assert times[-1] - ended < 0.9


def test_who_is_cut_off_misses_nothing_and_hears_nothing_twice(
    clients: tuple[httpx.Client, httpx.Client], kept_database: Database
) -> None:
    before = clients[0].get(f"{EVENTS}?limit=1000").json()[-1]["id"]
    made: list[str] = []
    writing = threading.Thread(target=lambda: made.extend(create(clients[0])["id"] for _ in range(40)))
    writing.start()
    told: list[Heard] = []
    last, turns = str(before), 0
    while len(told) < 40:
        # Cut off in the middle, and back at the other process.
        with closing(heard(clients[turns % 2], f"{EVENTS}/stream", last)) as stream:
            told += islice(stream, 3 if len(told) < 37 else 40 - len(told))
        last, turns = told[-1].id, turns + 1
    writing.join()
    assert [event.data["job_id"] for event in told] == made
    assert sorted({int(event.id) for event in told}) == [int(event.id) for event in told]


def test_a_log_is_heard_from_where_it_was_left(
    clients: tuple[httpx.Client, httpx.Client], kept_database: Database
) -> None:
    one, other = clients
    execution_id, lease = begin(kept_database, create(one)["id"])
    path = f"{EXECUTIONS}/{execution_id}/logs/stream"
    # More than is read at once.
    say(kept_database, execution_id, lease, 0, *map(str, range(1500)))
    with closing(heard(one, path)) as stream:
        lines = list(islice(stream, 1200))
    writing = threading.Timer(
        0.1,
        lambda: (
            say(kept_database, execution_id, lease, 1500, "last"),
            finish(kept_database, execution_id, lease),
        ),
    )
    writing.start()
    lines += heard(other, path, lines[-1].id)
    writing.join()
    assert [line.kind for line in lines] == ["log"] * 1501 + ["end"]
    assert [line.data["message"] for line in lines[:-1]] == [*map(str, range(1500)), "last"]


def test_the_stream_of_what_has_ended_ends(
    clients: tuple[httpx.Client, httpx.Client], kept_database: Database
) -> None:
    job_id = create(clients[0])["id"]
    execution_id, lease = begin(kept_database, job_id)
    finish(kept_database, execution_id, lease, State.FAILED)
    *_, last, end = heard(clients[1], f"{JOBS}/{job_id}/events/stream")
    assert (last.kind, end.kind) == ("job.failed", "end")
    assert [event.kind for event in heard(clients[0], f"{JOBS}/{job_id}/events/stream", last.id)] == ["end"]


def test_one_key_at_both_at_once_makes_one_job(clients: tuple[httpx.Client, httpx.Client]) -> None:
    # Sets have another order in each process.
    asked = command(features=[f"feature-{number}" for number in range(20)])

    def ask(at: int, key: str) -> httpx.Response:
        return clients[at % 2].post(JOBS, json=asked, headers={"Idempotency-Key": key})

    for _ in range(5):
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(ask, range(8), repeat(str(uuid4()))))
        assert [answer.status_code for answer in answers] == [201] * 8
        assert len({UUID(answer.json()["id"]) for answer in answers}) == 1
        assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1


def test_a_stream_ends_with_the_right_to_hear_it(
    stack: RunningStack, kept_database: Database, cheap_passwords: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streams, "SECONDS_BETWEEN_CHECKS", 0)
    create_user(kept_database, "ada")
    app = application(settings_of(stack, kept_database, **REQUIRED))
    with listening(app) as address, client_of(address) as client:
        login = {"username": "ada", "password": PASSWORD}
        token = client.post("/api/v1/auth/login", json=login).json()["access_token"]
        client.headers["Authorization"] = f"Bearer {token}"
        stream = heard(client, f"{EVENTS}/stream?after=0")
        create(client)
        next(stream)
        assert client.post("/api/v1/auth/logout").status_code == 204
        with kept_database.transaction() as connection:
            events.write(connection, "told.to.nobody", {})
        assert "told.to.nobody" not in [event.kind for event in stream]
