"""What the client does when all is well, and when something between it and the API is not."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Any

import pytest

from mlplatform.client import ApiError, ApiUnreachable, Client, Tokens
from mlplatform.client.connection import Said, _said
from mlplatform.client.tokens import InMemory
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane.database import Database
from mlplatform.settings import ConfigurationError
from mlplatform_tests.cli.serving import StandIn, standing_in
from mlplatform_tests.client.running import Run
from mlplatform_tests.services.control_plane.secured import PASSWORD
from mlplatform_tests.services.proxy import Proxy

HELLO = ["echo", "hello"]
STARTED: dict[str, Any] = {
    "id": str(uuid.uuid4()),
    "name": "echo",
    "pipeline_id": None,
    "status": "Pending",
    "reason": None,
    "message": None,
    "priority": 0,
    "round": 1,
    "spec": None,
    "run_id": None,
    "schedule_id": None,
    "scheduled_for": None,
    "created_by": "local",
    "created_at": "2026-01-31T12:00:00Z",
    "scheduled_at": None,
    "started_at": None,
    "finished_at": None,
}
HANGS_UP: tuple[int, None] = (0, None)
REFUSED: dict[str, Any] = {"title": "Service Unavailable", "status": 503, "detail": "no database"}


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, patience=5) as client:
        yield client


def test_a_job_is_made_found_cancelled_and_told_of(client: Client) -> None:
    job = client.jobs.create(HELLO, name="hello", priority=3, env={"A": "1"})
    assert (job.status, job.priority, job.ended) == (State.PENDING, 3, False)
    assert job.spec
    assert (job.spec.command, job.spec.env) == (HELLO, {"A": "1"})
    assert client.jobs.get(job.id) == job
    with pytest.raises(TimeoutError, match=r"is Pending after 0\.2 seconds"):
        client.jobs.wait(job.id, timeout=0.2)
    assert client.jobs.cancel(job.id).ended
    assert client.jobs.wait(job.id).status == State.CANCELLED
    told = [event.type for event in client.jobs.follow_events(job.id)]
    assert told == [event.type for event in client.jobs.events(job.id)]
    assert (told[0], told[-1]) == ("job.pending", "job.cancelled")


def test_a_list_is_read_page_by_page(client: Client) -> None:
    made = [client.jobs.create(HELLO, name=f"job {number}").id for number in range(5)]
    assert [job.id for job in client.jobs.list(page_size=2)] == made[::-1]
    assert [job.id for job in islice(client.jobs.list(page_size=2), 3)] == made[:1:-1]
    client.jobs.cancel(made[0])
    assert [job.id for job in client.jobs.list(status=State.CANCELLED, page_size=1)] == [made[0]]


def test_a_refusal_says_what_and_under_which_id(client: Client) -> None:
    unknown = uuid.uuid4()
    with pytest.raises(ApiError) as caught:
        client.jobs.get(unknown)
    error = caught.value
    assert (error.status, error.title, error.detail) == (404, "Not Found", f"there is no job {unknown}")
    assert error.correlation_id
    assert error.correlation_id in str(error)
    with pytest.raises(ApiError, match=r"body\.command.*422"):
        client.jobs.create([])


def test_a_log_is_followed_while_it_is_written(client: Client, database: Database) -> None:
    job = client.jobs.create(HELLO)
    lines = client.jobs.follow_logs(job.id)
    run = Run(database, job.id)
    # What ends a line elsewhere does not end one here.
    run.say("one", "two\u2028still two\x85")
    assert [next(lines)[1].message for _ in range(2)] == ["one", "two\u2028still two\x85"]
    run.say("three")
    assert next(lines)[1].message == "three"
    run.end()
    assert list(lines) == []
    assert [line.message for _, line in client.jobs.logs(job.id)] == [
        "one",
        "two\u2028still two\x85",
        "three",
    ]


def test_a_stream_that_is_cut_off_goes_on_where_it_was(address: str, database: Database) -> None:
    proxy = Proxy(address)
    try:
        with Client(proxy.url) as client:
            run = Run(database, client.jobs.create(HELLO).id)
            lines = client.executions.follow_logs(run.id)
            run.say("one", "two")
            heard = [next(lines).number for _ in range(2)]
            with proxy.cut():
                run.say("three")
            heard.append(next(lines).number)
            with proxy.cut():
                run.say("four")
                run.end()
            heard += [line.number for line in lines]
    finally:
        proxy.end()
    assert heard == [0, 1, 2, 3]


def test_events_are_read_however_they_arrive() -> None:
    sent = b": ping\r\n\r\nid: 1\nevent: log\ndata: {}\n\n"
    sent += b"event: end\r\ndata: a\r\ndata: b\r\n\r\nid: 3\n\ndata: cut"
    expected = [Said("1", "log", b"{}"), Said("", "end", b"a\nb")]
    assert list(_said(iter([sent]))) == expected
    assert list(_said(sent[at : at + 1] for at in range(len(sent)))) == expected


def test_a_write_that_the_api_knows_again_is_tried_again() -> None:
    with (
        standing_in(**{"api/v1/jobs": [HANGS_UP, (503, REFUSED), (201, STARTED)]}) as api,
        client_of(api) as client,
    ):
        assert str(client.jobs.create(HELLO).id) == STARTED["id"]
        keys = [headers["Idempotency-Key"] for headers, _ in api.requests("/api/v1/jobs")]
        assert len(keys) == 3
        assert len(set(keys)) == 1
        client.jobs.create(HELLO)
        assert api.requests("/api/v1/jobs")[-1][0]["Idempotency-Key"] not in keys


def test_another_write_is_tried_again_only_if_it_had_no_effect() -> None:
    path = f"api/v1/jobs/{STARTED['id']}/retry"
    with standing_in(**{path: [(503, REFUSED), HANGS_UP, (200, STARTED)]}) as api, client_of(api) as client:
        with pytest.raises(ApiUnreachable):
            client.jobs.retry(uuid.UUID(STARTED["id"]))
        assert len(api.requests(f"/{path}")) == 2


def test_who_waits_too_long_is_told_what_was_said_last() -> None:
    with standing_in(**{"api/v1/auth/me": [(503, REFUSED)]}) as api, client_of(api, patience=0.3) as client:
        with pytest.raises(ApiError, match="no database"):
            client.me()
        assert len(api.asked) > 1


def test_somebody_else_on_this_port_is_no_riddle() -> None:
    with (
        standing_in(**{"api/v1/auth/me": [(404, b"<h1>Not here</h1>")]}) as api,
        client_of(api) as client,
        pytest.raises(ApiError, match=r"<h1>Not here</h1> \(404"),
    ):
        client.me()


def test_where_nobody_listens_the_remedy_is_told() -> None:
    with Client("http://127.0.0.1:9", patience=0) as client, pytest.raises(ApiUnreachable) as caught:
        client.me()
    assert "http://127.0.0.1:9" in str(caught.value)
    assert "mlplatform serve api" in str(caught.value)


@pytest.mark.parametrize("url", ["localhost:8080", "ftp://host", "http://", "http://host?a=b", "http://h:x"])
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address"):
        Client(url)


def test_a_token_that_cannot_be_sent_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLPLATFORM_TOKEN", "geheim\u00fc")
    with pytest.raises(ConfigurationError) as caught:
        Client()
    assert "geheim" not in str(caught.value)


# Logging in


def test_who_has_logged_in_stays_so_when_the_token_expires(secured: str) -> None:
    store = InMemory()
    with Client(secured, store=store) as client:
        with pytest.raises(ApiError, match="401"):
            client.me()
        client.login("ada", PASSWORD)
        assert client.me().name == "ada"
        first = expire(store)
        # Who shows a refresh token twice is logged out: one of them exchanges it for all.
        together = threading.Barrier(8)
        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(lambda _: together.wait() >= 0 and client.me().name, range(8)))
        assert names == ["ada"] * 8
        second = store.load()
        assert second
        assert second.refresh_token != first.refresh_token


def test_a_token_that_the_api_does_not_take_is_exchanged(secured: str) -> None:
    store = InMemory()
    with Client(secured, store=store) as client:
        client.login("ada", PASSWORD)
        tokens = store.load()
        assert tokens
        store.save(Tokens("another", tokens.expires_at, tokens.refresh_token))
        assert client.me().name == "ada"


def test_logging_out_ends_the_tokens(secured: str) -> None:
    store = InMemory()
    with Client(secured, store=store) as client:
        client.login("ada", PASSWORD)
        tokens = store.load()
        assert tokens
        client.logout()
        assert store.load() is None
        store.save(tokens)
        with pytest.raises(ApiError, match="401"):
            client.me()
        # It can be exchanged for nothing.
        assert store.load() is None


def test_a_token_of_a_service_needs_no_login(secured: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with Client(secured) as client:
        client.login("ada", PASSWORD)
        asked = {"name": "ci", "scopes": ["jobs:read"]}
        token = client._connection.ask("POST", "/api/v1/auth/service-tokens", body=asked).json()[
            "access_token"
        ]
    monkeypatch.setenv("MLPLATFORM_TOKEN", f"{token}\n")
    with Client(secured) as client:
        assert client.me().name == "ada/ci"
        assert list(client.jobs.list()) == []
        with pytest.raises(ApiError, match="403"):
            client.jobs.create(HELLO)


def client_of(api: StandIn, patience: float = 10) -> Client:
    return Client(api.url, patience=patience)


def expire(store: InMemory) -> Tokens:
    """The tokens as they are when the access token is about to expire."""
    tokens = store.load()
    assert tokens
    old = Tokens(tokens.access_token, 0, tokens.refresh_token)
    store.save(old)
    return old
