"""Events that are posted elsewhere: signed, in order, at least once, and to no address within."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import RowMapping, text

from mlplatform.io.control_plane import events, tables, webhook_requests, webhooks
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.publishing import Published
from mlplatform.io.control_plane.webhook_requests import AddressRefused, WebhookPublisher, check_url
from mlplatform.io.control_plane.webhook_secrets import signature
from mlplatform.local.stack import RunningStack
from mlplatform.services.control_plane.delivering import Delivery
from mlplatform.settings import Settings
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.control_plane.receiving import Receiver, receiver
from mlplatform_tests.services.control_plane.serving import command, control_plane

WEBHOOKS, EVENTS = "/api/v1/webhooks", "/api/v1/events"
SECONDS = 10


@pytest.fixture(scope="module")
def client(stack: RunningStack, kept_database: Database) -> Iterator[TestClient]:
    with pytest.MonkeyPatch.context() as changed:
        changed.setattr(webhooks, "FIRST_WAIT", timedelta(milliseconds=100))
        with control_plane(stack, kept_database) as client:
            yield client


@pytest.fixture
def hook() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def create(client: TestClient, url: str, *types: str, **more: Any) -> dict[str, Any]:
    answer = client.post(WEBHOOKS, json={"url": url, "types": types, **more})
    assert answer.status_code == 201, answer.text
    return answer.json()


def jobs(client: TestClient, number: int) -> list[str]:
    return [client.post("/api/v1/jobs", json=command()).json()["id"] for _ in range(number)]


def get(client: TestClient, webhook: dict[str, Any]) -> dict[str, Any]:
    return client.get(f"{WEBHOOKS}/{webhook['id']}").json()


def newest(client: TestClient) -> int:
    return max((event["id"] for event in client.get(f"{EVENTS}?limit=1000").json()), default=0)


def test_the_signature_is_that_of_the_specification() -> None:
    # The example by which libraries of Standard Webhooks test themselves.
    made = signature(
        "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "msg_p5jXN8AQM9LWM0D4loKWxJek",
        1614265330,
        b'{"test": 2432232314}',
    )
    assert made == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_events_are_posted_as_they_happen(client: TestClient, hook: Receiver) -> None:
    before = newest(client)
    webhook = create(client, hook.url)
    made = jobs(client, 15)
    assert eventually(lambda: len(hook.received) >= 15, SECONDS)
    told = client.get(f"{EVENTS}?after={before}").json()
    assert [each.event["job_id"] for each in hook.received] == made
    first, event = hook.received[0], told[0]
    assert first.event == {
        "type": "job.pending",
        "timestamp": event["at"].replace("Z", "+00:00"),
        "id": event["id"],
        "event_id": event["event_id"],
        "job_id": event["job_id"],
        "sequence": 1,
        "data": event["data"],
    }
    assert hook.ids == [each["event_id"] for each in told]
    assert (first.path, first.headers["content-type"]) == ("/hook?a=1", "application/json")
    assert all(each.verified_by(webhook["secret"]) for each in hook.received)
    assert not first.verified_by("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert eventually(lambda: get(client, webhook)["position"] == told[-1]["id"], SECONDS)
    assert client.delete(f"{WEBHOOKS}/{webhook['id']}").status_code == 204
    assert client.get(f"{WEBHOOKS}/{webhook['id']}").status_code == 404


def test_only_what_is_wanted_is_posted(client: TestClient, hook: Receiver) -> None:
    create(client, hook.url, "job.cancelled", "worker.*")
    [job] = jobs(client, 1)
    client.post(f"/api/v1/jobs/{job}/cancel")
    client.post("/api/v1/workers", json={})
    assert eventually(lambda: len(hook.received) >= 2, SECONDS)
    assert hook.types == ["job.cancelled", "worker.available"]


def test_what_was_refused_is_posted_again_and_nothing_overtakes_it(
    client: TestClient, hook: Receiver
) -> None:
    hook.answers = [500, 302, 204, 204, 503]
    hook.headers = {"Location": hook.url}
    webhook = create(client, hook.url)
    jobs(client, 5)
    assert eventually(lambda: len(hook.received) >= 8, SECONDS)
    ids = hook.ids
    assert ids[0] == ids[1] == ids[2]
    assert ids[4] == ids[5]
    assert len(set(ids)) == 5
    assert len(ids) == 8
    assert eventually(lambda: get(client, webhook)["failures"] == 0, SECONDS)
    assert get(client, webhook)["trouble"] is None


def test_one_that_hangs_holds_up_no_other(
    client: TestClient, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhook_requests, "SECONDS", 1.0)
    with receiver() as slow:
        # Each letter in time, and the answer never.
        slow.seconds = 0.1
        hanging = create(client, slow.url)
        create(client, hook.url)
        began = time.monotonic()
        jobs(client, 3)
        assert eventually(lambda: len(hook.received) >= 3, SECONDS)
        assert eventually(lambda: get(client, hanging)["failures"] >= 1, SECONDS)
        assert time.monotonic() - began < 5
        assert get(client, hanging)["trouble"] == "no answer within 1 seconds"
        client.delete(f"{WEBHOOKS}/{hanging['id']}")


def test_who_wants_nothing_more_is_paused_and_may_go_on(client: TestClient, hook: Receiver) -> None:
    hook.answers = [204, 410]
    webhook = create(client, hook.url, "job.*")
    before = newest(client)
    jobs(client, 3)
    assert eventually(lambda: get(client, webhook)["paused"], SECONDS)
    told = [event for event in client.get(f"{EVENTS}?after={before}").json() if "webhook" in event["type"]]
    assert [(each["type"], each["data"]) for each in told] == [
        ("webhook.paused", {"webhook_id": webhook["id"], "reason": "unwanted"})
    ]
    resumed = client.patch(f"{WEBHOOKS}/{webhook['id']}", json={"paused": False}).json()
    assert (resumed["paused"], resumed["failures"]) == (False, 0)
    assert eventually(lambda: len(hook.received) == 4, SECONDS)
    assert hook.ids[1] == hook.ids[2]


def test_one_that_fails_for_days_is_paused(
    client: TestClient, hook: Receiver, kept_database: Database
) -> None:
    hook.answers = [500] * 100
    webhook = create(client, hook.url, "job.*")
    before = newest(client)
    jobs(client, 1)
    assert eventually(lambda: get(client, webhook)["failures"] >= 1, SECONDS)
    with kept_database.transaction() as connection:
        connection.execute(text("UPDATE webhooks SET failing_since = failing_since - interval '4 days'"))
    assert eventually(lambda: get(client, webhook)["paused"], SECONDS)
    assert eventually(
        lambda: any(
            event["data"] == {"webhook_id": webhook["id"], "reason": "failing"}
            for event in client.get(f"{EVENTS}?after={before}").json()
        ),
        SECONDS,
    )


def test_waiting_grows_to_hours_and_differs() -> None:
    for failures in (1, 5, 20, 10_000):
        most = min(webhooks.LONGEST_WAIT, webhooks.FIRST_WAIT * 2 ** min(failures - 1, 30))
        waits = {webhooks.wait(failures, None) for _ in range(50)}
        assert most / 2 <= min(waits) < max(waits) <= most
        assert len(waits) > 40
    assert webhooks.wait(1, 3600) == timedelta(hours=1)
    assert webhooks.wait(1, 1e9) == webhooks.LONGEST_WAIT


def test_after_rotation_both_secrets_sign_for_a_day(
    client: TestClient, hook: Receiver, kept_database: Database
) -> None:
    old = create(client, hook.url, "job.*")
    new = client.post(f"{WEBHOOKS}/{old['id']}/rotate").json()
    assert new["secret"] != old["secret"]
    jobs(client, 1)
    assert eventually(lambda: len(hook.received) == 1, SECONDS)
    with kept_database.transaction() as connection:
        connection.execute(text("UPDATE webhooks SET both_secrets_until = now()"))
    jobs(client, 1)
    assert eventually(lambda: len(hook.received) == 2, SECONDS)
    verified = [[each.verified_by(made["secret"]) for made in (old, new)] for each in hook.received]
    assert verified == [[True, True], [False, True]]


def test_an_event_can_be_tried(client: TestClient, hook: Receiver) -> None:
    webhook = create(client, hook.url)
    path = f"{WEBHOOKS}/{webhook['id']}/test"
    assert client.post(path).json()["delivered"] is True
    [tried] = hook.received
    assert (tried.event["type"], tried.verified_by(webhook["secret"])) == ("webhook.test", True)
    hook.answers = [404]
    answer = client.post(path).json()
    assert (answer["delivered"], answer["trouble"]) == (False, "it answered 404")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
    client.patch(f"{WEBHOOKS}/{webhook['id']}", json={"url": nobody})
    assert "refused" in client.post(path).json()["trouble"]


def test_the_secret_is_shown_once_and_kept_nowhere(
    client: TestClient, hook: Receiver, kept_database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    webhook = create(client, hook.url)
    secret = webhook["secret"].removeprefix("whsec_")
    jobs(client, 1)
    assert eventually(lambda: len(hook.received) >= 1, SECONDS)
    path = f"{WEBHOOKS}/{webhook['id']}"
    said = [
        client.get(path).text,
        client.get(WEBHOOKS).text,
        client.patch(path, json={"types": []}).text,
        client.post(f"{path}/test").text,
        client.get(f"{EVENTS}?limit=1000").text,
        caplog.text,
    ]
    with kept_database.transaction() as connection:
        for table in tables.METADATA.sorted_tables:
            said.append(str(connection.execute(table.select()).all()))
    assert not [each for each in said if secret in each]
    assert client.post(WEBHOOKS, json={"url": hook.url}).headers["cache-control"] == "no-store"


# The protocol under which a broker can be put


class Broker:
    """Takes two at a time, and forgets to say so now and then."""

    def __init__(self) -> None:
        self.taken: list[int] = []
        self.calls = 0

    def publish(self, events: Sequence[RowMapping]) -> Published:
        self.calls += 1
        self.taken += [event["id"] for event in events[:2]]
        if self.calls % 3 == 0:
            raise ConnectionError("lost before it was acknowledged")
        trouble = None if len(events) <= 2 else "full"
        return Published(events[:2][-1]["id"], trouble)


def test_what_was_not_acknowledged_is_handed_over_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webhooks, "FIRST_WAIT", timedelta(0))
    broker = Broker()
    with database.transaction() as connection:
        webhooks.create(connection, "nats://broker", [], None, "")
        for number in range(9):
            events.write(connection, "some.thing", {"number": number})
    with database.transaction() as connection:
        ids = [event["id"] for event in events.after(connection, 0)]

    def goes_on() -> bool:
        # Each is another process, that begins where it was kept how far the one before had got.
        delivery = Delivery(database, lambda _: broker)
        delivery.round()
        delivery._threads.shutdown()
        with database.transaction() as connection:
            return not webhooks.due(connection)

    assert eventually(goes_on, SECONDS)
    assert set(broker.taken) == set(ids)
    assert len(broker.taken) > len(ids)
    firsts = [id_ for at, id_ in enumerate(broker.taken) if id_ not in broker.taken[:at]]
    assert firsts == ids


def test_one_that_is_paused_while_it_passes_over_events_is_left_alone(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    with database.transaction() as connection:
        id_ = webhooks.create(connection, "http://hook", ["nothing.*"], None, "")["id"]
        events.write(connection, "some.thing", {})
    after, looked = events.after, []

    def paused_meanwhile(*arguments: Any) -> Sequence[RowMapping]:
        looked.append(arguments)
        assert len(looked) == 1
        with database.transaction() as other:
            webhooks.change(other, id_, paused=True)
        return after(*arguments)

    monkeypatch.setattr(events, "after", paused_meanwhile)
    with database.transaction() as connection:
        assert webhooks.next_events(connection, id_, 10) is None


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7.0),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2015 07:28:00 -0000", None),
        ("x", None),
    ],
)
def test_whatever_it_says_of_the_next_attempt_is_no_reason_to_fail(said: str, seconds: float | None) -> None:
    assert webhook_requests._seconds(said) == seconds


# Addresses


WITHIN = [
    "http://example.com/",
    "https://127.0.0.1/",
    "https://10.1.2.3/",
    "https://192.168.0.1/",
    "https://169.254.169.254/latest/meta-data",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://224.0.0.1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[fe80::1]/",
    "https://[fd00::1]/",
    "https://[ff02::1]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[2002:7f00:1::]/",
    "https://[64:ff9b::7f00:1]/",
    "https://user:password@example.com/",
]


@pytest.mark.parametrize("url", WITHIN)
def test_outside_local_addresses_within_are_refused(url: str) -> None:
    with pytest.raises(AddressRefused) as caught:
        check_url(url, public=True)
    assert "password" not in str(caught.value).replace("user in it", "")


@pytest.mark.parametrize(
    "url", ["https://93.184.216.34/", "https://[2606:4700::1111]/", "https://example.com/"]
)
def test_public_addresses_are_not(url: str) -> None:
    check_url(url, public=True)


def an_event() -> Any:
    return {
        "id": 1,
        "event_id": uuid4(),
        "type": "a",
        "at": datetime.now(UTC),
        "job_id": None,
        "sequence": None,
        "data": {},
    }


def test_a_name_that_leads_within_is_found_when_it_is_connected_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Whatever other spellings of an address the look-up knows.
    for host in ("localhost", "127.1", "2130706433", "0x7f.1"):
        tried = WebhookPublisher(f"https://{host}/", ["whsec_AAAA"], public=True).publish([an_event()])
        assert tried.trouble, host
        assert "is not a public address" in tried.trouble
    # One public address does not let another pass.
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ("93.184.216.34", "10.0.0.1")]
    really = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *rest, **more: found if host == "hook.example" else really(host, *rest, **more),
    )
    tried = WebhookPublisher("https://hook.example/", ["whsec_AAAA"], public=True).publish([an_event()])
    assert tried.trouble == "10.0.0.1 is not a public address"


def test_the_address_that_was_looked_at_is_connected_to(
    hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(hook.url.split(":")[2].split("/")[0])
    asked: list[str] = []
    really = socket.getaddrinfo

    def look_up(host: Any, *rest: Any, **more: Any) -> Any:
        if host != "hook.example":
            return really(host, *rest, **more)
        asked.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    url = f"http://hook.example:{port}/"
    assert WebhookPublisher(url, ["whsec_AAAA"], public=False).publish([an_event()]) == Published(1)
    assert hook.received[0].headers["host"] == f"hook.example:{port}"
    assert asked == ["hook.example"]


# Requests


@pytest.mark.parametrize(
    "asked",
    [
        {},
        {"url": "ftp://a/"},
        {"url": "a"},
        {"url": "http://user:password@a/"},
        {"url": "http://a/", "types": ["*"]},
        {"url": "http://a/", "types": ["job.*.x"]},
        {"url": "http://a/", "events": []},
        {"url": "http://a/", "after": -1},
        {"url": "http://a/" + "a" * 2000},
    ],
)
def test_what_cannot_be_posted_to_is_refused(client: TestClient, asked: dict[str, Any]) -> None:
    answer = client.post(WEBHOOKS, json=asked)
    assert (answer.status_code, answer.headers["content-type"]) == (422, "application/problem+json")


@pytest.mark.parametrize(
    ("method", "rest"), [("GET", ""), ("PATCH", ""), ("DELETE", ""), ("POST", "/test"), ("POST", "/rotate")]
)
def test_what_is_not_there_is_not_found(client: TestClient, method: str, rest: str) -> None:
    assert client.request(method, f"{WEBHOOKS}/{uuid4()}{rest}", json={}).status_code == 404


@pytest.mark.parametrize(
    ("key", "url", "status", "said"),
    [
        ("", "https://example.com", 409, "openssl rand"),
        ("short", "https://example.com", 409, "has 5 bytes"),
        ("k" * 32, "https://10.0.0.1", 422, "not a public address"),
        ("k" * 32, "http://example.com", 422, "https://"),
        ("k" * 32, "https://example.com", 201, "whsec_"),
    ],
)
def test_outside_local_there_must_be_a_key_and_the_address_is_public(
    client: TestClient, key: str, url: str, status: int, said: str
) -> None:
    app: Any = client.app
    before = app.state.settings
    app.state.settings = Settings({"MLPLATFORM_ENV": "compose", "MLPLATFORM_WEBHOOK_KEY": key})
    try:
        answer = client.post(WEBHOOKS, json={"url": url})
    finally:
        app.state.settings = before
    assert (answer.status_code, said in answer.text) == (status, True)
    if status == 201:
        assert client.delete(f"{WEBHOOKS}/{answer.json()['id']}").status_code == 204
