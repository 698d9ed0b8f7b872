"""What is plain is answered without FastAPI, as FastAPI would; everything else gets there as it came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import pytest
from fastapi import Request, Response
from fastapi.testclient import TestClient
from prometheus_client.parser import text_string_to_metric_families
from pydantic import BaseModel

from mlplatform.errors import TransientError
from mlplatform.services.direct import Direct, DirectRoute
from mlplatform.services.refusals import Refused
from mlplatform.services.security import Tokens
from mlplatform.settings import Settings
from mlplatform_tests.services import things
from mlplatform_tests.services.test_app import JSON, READER, TOKENS, WRITER, in_pieces, long_body
from mlplatform_tests.services.test_models import client as model

PLAIN = {"content-type": "application/json"}


class Value(BaseModel):
    value: float


async def answer(body: Value, key: str | None) -> dict[str, Any]:
    if body.value == 1:
        raise Refused(409, "not one", {"Retry-After": "7"})
    if body.value == 2:
        raise TransientError("not now")
    return {"value": body.value, "key": key}


async def behind(scope: Any, receive: Any, send: Any) -> None:
    """In FastAPI's place: tells what it was given."""
    given = await Request(scope, receive).body()
    await Response(b"passed on: " + given)(scope, receive, send)


def client(**variables: str) -> TestClient:
    routes = {"/values": DirectRoute("/values", "things:write", Value, answer)}
    return TestClient(Direct(behind, routes, Tokens(Settings(variables))))


def test_what_is_plain_is_answered() -> None:
    reply = client().post("/values", content='{"value": 3}', headers={**PLAIN, "Idempotency-Key": "k"})
    assert (reply.status_code, reply.json()) == (200, {"value": 3.0, "key": "k"})
    assert client().post("/values", content='{"value": 3}', headers=PLAIN).json()["key"] is None


def test_refusals_have_the_shape_that_they_have_elsewhere() -> None:
    refused = client().post("/values", content='{"value": 1}', headers=PLAIN)
    assert (refused.status_code, refused.json()["detail"]) == (409, "not one")
    assert refused.headers["Retry-After"] == "7"
    unavailable = client().post("/values", content='{"value": 2}', headers=PLAIN)
    assert (unavailable.status_code, unavailable.json()["detail"]) == (503, "not now")


@pytest.mark.parametrize(
    ("method", "url", "body", "headers"),
    [
        ("POST", "/values", '{"value": "x"}', PLAIN),
        ("POST", "/values", '{"value": 3', PLAIN),
        ("POST", "/values", "", PLAIN),
        ("POST", "/values", '{"value": 3}', {}),
        ("POST", "/values", '{"value": 3}', {"content-type": "application/json; charset=latin-1"}),
        ("POST", "/values?value=4", '{"value": 3}', PLAIN),
        ("POST", "/values/", '{"value": 3}', PLAIN),
        ("PUT", "/values", '{"value": 3}', PLAIN),
        ("POST", "/values", '{"value": 3}', {**PLAIN, "Idempotency-Key": "k" * 201}),
        ("POST", "/values", '{"value": 3}', {**PLAIN, "Idempotency-Key": ""}),
    ],
)
def test_what_is_not_plain_is_passed_on_as_it_came(
    method: str, url: str, body: str, headers: dict[str, str]
) -> None:
    assert client().request(method, url, content=body, headers=headers).text == f"passed on: {body}"


def test_a_body_in_parts_is_put_together_or_passed_on_whole() -> None:
    def parts(*texts: bytes) -> Iterator[bytes]:
        yield from texts

    whole = client().post("/values", content=parts(b'{"val', b'ue": 3}'), headers=PLAIN)
    assert whole.json()["value"] == 3
    torn = client().post("/values", content=parts(b'{"val', b'ue": ', b"3"), headers=PLAIN)
    assert torn.text == 'passed on: {"value": 3'


@pytest.mark.parametrize(
    ("authorization", "answered"),
    [
        (f"Bearer {WRITER}", True),
        (f"bearer {WRITER}", True),
        (f"Bearer {READER}", False),
        ("Bearer nobody", False),
        (WRITER, False),
        (f"Basic {WRITER}", False),
        ("", False),
    ],
)
def test_only_a_token_with_the_scope_is_answered(authorization: str, answered: bool) -> None:
    guarded = client(MLPLATFORM_API_TOKENS=TOKENS)
    reply = guarded.post("/values", content='{"value": 3}', headers={**PLAIN, "authorization": authorization})
    assert reply.text.startswith("passed on") is not answered


BODIES: list[Any] = [
    {},
    {"features": {"in_1": 1}},
    {"features": {"in_1": 1, "in_2": 2.5}},
    {"features": {}},
    {"features": None},
    {"features": []},
    {"features": {"in_1": "7"}},
    {"features": {"in_1": "seven"}},
    {"features": {"in_1": True}},
    {"features": {"in_1": None}},
    {"features": {"in_2": 1}},
    {"features": {"in_1": 1e400}},
    {"features": {"in_1": 10**30}},
    {"features": {"in_1": 10**400}},
    {"features": {"in_1": 1}, "series_id": ""},
    {"features": {"in_1": 1}, "series_id": "s"},
    {"features": {"in_1": 1}, "series_id": 7},
    {"features": {"in_1": 1}, "series_id": "\ud800"},
    {"features": {"in_1": 1}, "series_id": "x" * 300},
    {"features": {"in_1": 1}, "more": 1},
    {"features": {"in_1": 1}, "target": 1},
    {"features": {"in_1": 1}, "target": "1"},
    {"features": {"in_1": 1}, "target": [1]},
    {"features": {"in_1": 1}, "target": 1, "event_time": "2020-01-01T00:00:00Z"},
    {"features": {"in_1": 1}, "target": 1, "event_time": "2020-01-01"},
    {"features": {"in_1": 1}, "target": 1, "event_time": 10**9},
    {"features": {"in_1": 1}, "target": 1, "event_time": "now"},
    {"features": {"in_1": 1}, "target": 1, "observation_id": 7},
    {"features": {"in_1": 1}, "target": 1, "observation_id": ""},
    None,
    [],
    "text",
]


def test_a_model_says_the_same_on_both_ways(settings: Settings) -> None:
    """Also of bodies that only nearly are what they should be."""
    with model(settings, "linear_regression") as served:

        def said(path: str, body: Any, way: int) -> tuple[int, Any]:
            if isinstance(body, dict) and "target" in body:
                body = {"series_id": f"{len(seen)}-{way}", "observation_id": "o", **body}
            charset = "; charset=utf-8" if way else ""
            reply = served.post(
                path, content=json.dumps(body), headers={"content-type": f"application/json{charset}"}
            )
            told = reply.json()
            told.pop("series_id", None)
            # A refusal may be in other words.
            return reply.status_code, told if reply.is_success else list(told)

        seen: list[Any] = []
        for path in ("/predict", "/predict_learn"):
            for body in BODIES:
                directly, by_fastapi = (said(path, body, way) for way in (0, 1))
                assert directly == by_fastapi, body
                seen.append(directly[0])
        assert {200, 422} <= set(seen)


# Within a service


@contextmanager
def service(**variables: str) -> Iterator[tuple[TestClient, list[float]]]:
    """One whose POST /things is answered directly, and what was answered so."""
    answered: list[float] = []

    async def answer(thing: things.Thing, key: str | None) -> dict[str, Any]:
        answered.append(thing.value)
        if not thing.value:
            raise RuntimeError(things.SECRET)
        return {"value": thing.value, "name": "directly"}

    app = things.application(**variables)
    app.state.direct["/things"] = DirectRoute("/things", "things:write", things.Thing, answer)
    with TestClient(app, raise_server_exceptions=False) as opened:
        yield opened, answered


def counted(opened: TestClient) -> dict[tuple[str, str], float]:
    """How many requests there were of each route and status."""
    families = text_string_to_metric_families(opened.get("/metrics").text)
    [requests] = [family for family in families if family.name == "http_requests"]
    return {(each.labels["route"], each.labels["status"]): each.value for each in requests.samples}


def test_it_is_counted_named_and_shown_to_other_origins_as_every_request_is() -> None:
    sent = {**PLAIN, "X-Request-ID": "chosen", "Origin": "https://here.example"}
    with service(MLPLATFORM_CORS_ORIGINS="https://here.example") as (opened, _):
        reply = opened.post("/things", content='{"value": 3}', headers=sent)
        assert reply.json() == {"value": 3.0, "name": "directly"}
        assert reply.headers["X-Request-ID"] == "chosen"
        assert reply.headers["Access-Control-Allow-Origin"] == "https://here.example"
        assert counted(opened)["/things", "200"] == 1


def test_what_nobody_foresaw_is_told_by_its_correlation_id_alone() -> None:
    with service() as (opened, _):
        reply = opened.post("/things", content='{"value": 0}', headers={**PLAIN, "X-Request-ID": "chosen"})
        assert (reply.status_code, reply.json()["correlation_id"]) == (500, "chosen")
        assert things.SECRET not in reply.text
        assert counted(opened)["/things", "500"] == 1


@pytest.mark.parametrize("body", [long_body(), in_pieces(long_body())], ids=["at once", "in pieces"])
def test_a_body_has_a_greatest_length(body: Any) -> None:
    # A transport that hands pieces on as they come, unlike the test client's.
    async def story(app: Any) -> int:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://here") as caller:
            return (await caller.post("/things", content=body, headers=JSON)).status_code

    with service() as (opened, answered):
        assert asyncio.run(story(opened.app)) == 413
        assert answered == []


def test_who_asks_too_often_or_has_no_token_is_not_answered() -> None:
    with service(MLPLATFORM_RATE_LIMIT="3/minute", MLPLATFORM_API_TOKENS=TOKENS) as (opened, answered):

        def status(token: str, value: int) -> int:
            sent = {**PLAIN, "Authorization": f"Bearer {token}"}
            return opened.post("/things", content=f'{{"value": {value}}}', headers=sent).status_code

        assert [status(WRITER, value) for value in range(1, 5)] == [200, 200, 200, 429]
        assert [status(READER, 5), status("nobody", 6)] == [403, 401]
        assert answered == [1, 2, 3]
