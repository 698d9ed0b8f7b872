"""What every service does alike, shown on an application with a few routes of its own."""

from __future__ import annotations

import asyncio
import hashlib
import json
import pickle
import re
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from limits import parse
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families
from starlette.types import Message

from mlplatform.errors import PlatformError
from mlplatform.services.app import LONGEST_BODY_BYTES, LONGEST_CORRELATION_ID, _Observed, create_app
from mlplatform.services.security import Tokens
from mlplatform.settings import ConfigurationError, Settings
from mlplatform_tests.local.processes import eventually
from mlplatform_tests.services.things import SECRET, application, main

READER, WRITER = "a token that reads", "a token that writes"
TOKENS = json.dumps(
    {
        hashlib.sha256(READER.encode()).hexdigest(): ["things:read", "metrics:read"],
        hashlib.sha256(WRITER.encode()).hexdigest().upper(): ["things:write"],
    }
)
DIGEST = hashlib.sha256(b"").hexdigest()
JSON = {"Content-Type": "application/json"}
SECONDS = 30


@contextmanager
def client(**variables: str) -> Iterator[TestClient]:
    with TestClient(application(**variables), raise_server_exceptions=False) as opened:
        yield opened


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def detail(response: httpx.Response) -> str:
    return response.json()["detail"]


# Tokens


def test_in_local_nobody_needs_a_token() -> None:
    with client() as open_:
        assert open_.get("/things/a").status_code == 200
        assert open_.post("/things", json={"value": 1}).json() == {"value": 1, "name": "thing"}


@pytest.mark.parametrize("environment", ["local", "compose", "kubernetes"])
def test_a_token_does_what_its_scopes_say(environment: str) -> None:
    with client(MLPLATFORM_ENV=environment, MLPLATFORM_API_TOKENS=TOKENS) as closed:
        assert closed.get("/things/a", headers=bearer(READER)).status_code == 200
        assert closed.post("/things", json={"value": 1}, headers=bearer(WRITER)).status_code == 200
        refused = closed.post("/things", json={"value": 1}, headers=bearer(READER))
        assert refused.status_code == 403
        assert "things:write" in detail(refused)


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("nobody's"), bearer(""), {"Authorization": f"Basic {READER}"}, {"Authorization": READER}],
    ids=["none", "unknown", "empty", "another scheme", "no scheme"],
)
def test_without_a_token_that_is_known_nothing_is_told(headers: dict[str, str]) -> None:
    with client(MLPLATFORM_API_TOKENS=TOKENS) as closed:
        refused = closed.get("/things/a", headers=headers)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"] == "Bearer"
    assert refused.json().keys() == {"type", "title", "status", "detail", "correlation_id"}


def test_a_refused_client_is_told_so_before_its_body_is_looked_at() -> None:
    with client(MLPLATFORM_API_TOKENS=TOKENS) as closed:
        assert closed.post("/things", json={"value": "no number"}).status_code == 401


def test_probes_need_no_token_and_metrics_do() -> None:
    with client(MLPLATFORM_API_TOKENS=TOKENS) as closed:
        assert closed.get("/ready").json() == {"status": "ready"}
        assert closed.get("/metrics").status_code == 401
        assert closed.get("/metrics", headers=bearer(WRITER)).status_code == 403
        assert closed.get("/metrics", headers=bearer(READER)).status_code == 200


@pytest.mark.parametrize("environment", ["compose", "kubernetes"])
def test_outside_local_there_must_be_tokens(environment: str) -> None:
    with pytest.raises(ConfigurationError, match="MLPLATFORM_API_TOKENS is not set"):
        application(MLPLATFORM_ENV=environment)


@pytest.mark.parametrize(
    "text",
    [
        "nonsense",
        "[]",
        '"text"',
        json.dumps({DIGEST: 1}),
        json.dumps({DIGEST: None}),
        json.dumps({DIGEST: "models:read"}),
        # A token in clear.
        json.dumps({READER: ["models:read"]}),
        json.dumps({DIGEST[:-2]: ["models:read"]}),
    ],
)
def test_tokens_that_cannot_be_read_are_not_taken_for_none(text: str) -> None:
    with pytest.raises(ConfigurationError, match="MLPLATFORM_API_TOKENS") as caught:
        application(MLPLATFORM_API_TOKENS=text)
    assert READER not in str(caught.value)


# Limits


def long_body() -> bytes:
    return json.dumps({"value": 1, "name": "x" * LONGEST_BODY_BYTES}).encode()


async def in_pieces(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), 1000):
        yield body[start : start + 1000]


def longest_body() -> bytes:
    rest = len(json.dumps({"value": 1, "name": ""}).encode())
    return json.dumps({"value": 1, "name": "x" * (LONGEST_BODY_BYTES - rest)}).encode()


BODIES = [(longest_body(), 200), (long_body(), 413)]


@pytest.mark.parametrize(("body", "status"), BODIES, ids=["longest", "too long"])
def test_a_body_has_a_greatest_length(body: bytes, status: int) -> None:
    with client() as open_:
        answer = open_.post("/things", content=body, headers=JSON)
    assert answer.status_code == status
    assert (str(LONGEST_BODY_BYTES) in answer.text) == (status == 413)


@pytest.mark.parametrize(("body", "status"), BODIES, ids=["longest", "too long"])
def test_a_body_that_does_not_say_its_length_is_counted(body: bytes, status: int) -> None:
    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(application())
        async with httpx.AsyncClient(transport=transport, base_url="http://things") as caller:
            return await caller.post("/things", content=in_pieces(body), headers=JSON)

    answer = asyncio.run(asked())
    assert "Content-Length" not in answer.request.headers
    assert answer.status_code == status
    assert (str(LONGEST_BODY_BYTES) in answer.text) == (status == 413)


def test_who_asks_too_often_is_told_when_to_come_back() -> None:
    with client(MLPLATFORM_RATE_LIMIT="3/minute") as limited:
        assert [limited.get("/things/a").status_code for _ in range(5)] == [200, 200, 200, 429, 429]
        refused = limited.get("/things/a")
        assert "3 per 1 minute" in detail(refused)
        assert 0 < int(refused.headers["Retry-After"]) <= 60
        # Probes and scrapers are no clients.
        assert [limited.get("/ready").status_code for _ in range(5)] == [200] * 5
        assert limited.get("/metrics").status_code == 200


def test_clients_have_limits_of_their_own() -> None:
    with client(MLPLATFORM_RATE_LIMIT="1/minute", MLPLATFORM_API_TOKENS=TOKENS) as limited:
        assert limited.get("/things/a", headers=bearer(READER)).status_code == 200
        assert limited.get("/things/a", headers=bearer(READER)).status_code == 429
        assert limited.post("/things", json={"value": 1}, headers=bearer(WRITER)).status_code == 200


def test_clients_that_have_gone_are_forgotten() -> None:
    settings = Settings({})
    observed = _Observed(application(), CollectorRegistry(), parse("1/second"), Tokens(settings))

    def ask(address: str) -> None:
        observed._refusal({"headers": [], "path": "/things", "client": (address, 1)})

    def remembered() -> int:
        ask("the one who stays")
        return len(pickle.dumps(observed._limiter.storage))

    few = remembered()
    for number in range(1_000):
        ask(f"2001:db8::{number:x}")
    assert remembered() > 10 * few
    assert eventually(lambda: remembered() < 2 * few, SECONDS)


@pytest.mark.parametrize("rate", ["often", "0/minute"])
def test_a_rate_that_cannot_be_is_said_at_the_start(rate: str) -> None:
    with pytest.raises(ConfigurationError, match="MLPLATFORM_RATE_LIMIT"):
        application(MLPLATFORM_RATE_LIMIT=rate)


@pytest.mark.parametrize(
    ("setting", "variable", "value"),
    [
        ("service_shard", "MLPLATFORM_SERVICE_ORDINAL", "-1"),
        ("service_shard", "MLPLATFORM_SERVICE_ORDINAL", "1.7"),
        ("most_series", "MLPLATFORM_MOST_SERIES", "0"),
        ("most_series", "MLPLATFORM_MOST_SERIES", "inf"),
        ("labelled_series", "MLPLATFORM_LABELLED_SERIES", "-1"),
        ("served_lags", "N_LAGS", "-1"),
        ("served_lags", "N_LAGS", "100000"),
        ("flush_seconds", "MLPLATFORM_FLUSH_SECONDS", "nan"),
        ("flush_seconds", "MLPLATFORM_FLUSH_SECONDS", "-1"),
        ("flush_seconds", "MLPLATFORM_FLUSH_SECONDS", "soon"),
    ],
)
def test_a_number_that_cannot_be_is_refused_by_its_variable(setting: str, variable: str, value: str) -> None:
    """A shard below the services' own would be the pipeline's."""
    with pytest.raises(ConfigurationError, match=variable):
        getattr(Settings({variable: value}), setting)


def test_pages_of_other_origins_may_call_if_they_are_named() -> None:
    asked = {"Origin": "https://board.example", "Access-Control-Request-Method": "POST"}
    with client(MLPLATFORM_CORS_ORIGINS="https://board.example") as named, client() as closed:
        allowed = named.options("/things", headers=asked)
        assert allowed.headers["Access-Control-Allow-Origin"] == "https://board.example"
        other = named.options("/things", headers={**asked, "Origin": "https://evil.example"})
        assert "Access-Control-Allow-Origin" not in other.headers
        assert "Access-Control-Allow-Origin" not in closed.options("/things", headers=asked).headers


# Replies that are no success


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity"])
def test_a_body_with_no_number_is_invalid_and_not_an_error_of_ours(value: str) -> None:
    with client() as open_:
        answer = open_.post(
            "/things",
            content=f'{{"value": 1, "name": {value}}}',
            headers=JSON,
        )
    assert answer.status_code == 422
    [problem] = answer.json()["detail"]
    assert problem["loc"] == ["body", "name"]


def test_an_invalid_body_is_described_and_not_repeated() -> None:
    with client() as open_:
        answer = open_.post("/things", json={"value": SECRET})
    assert answer.status_code == 422
    assert [problem["loc"] for problem in answer.json()["detail"]] == [["body", "value"]]
    assert SECRET not in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[1, 2]", b"null", b'{"value": 1e999}x'])
def test_what_is_no_json_is_invalid(body: bytes) -> None:
    with client() as open_:
        answer = open_.post("/things", content=body, headers=JSON)
    assert answer.status_code == 422
    assert answer.json()["detail"]


def test_a_body_in_no_encoding_is_refused() -> None:
    with client() as open_:
        answer = open_.post("/things", content=b"\xff\xfe\x00", headers=JSON)
    assert answer.status_code == 400
    assert "body" in detail(answer)


def test_a_refusal_says_its_status_its_reason_and_its_headers() -> None:
    with client() as open_:
        answer = open_.get("/refused")
    assert answer.status_code == 409
    assert answer.json()["detail"] == "there is one already; name another"
    assert answer.headers["Retry-After"] == "7"


def test_what_may_pass_by_itself_is_unavailable() -> None:
    with client() as open_:
        answer = open_.get("/transient")
    assert answer.status_code == 503
    assert answer.json()["detail"] == "the store is away; try again"
    assert int(answer.headers["Retry-After"]) > 0


def test_what_nobody_foresaw_is_told_by_its_correlation_id_alone() -> None:
    with client() as open_:
        answer = open_.get("/broken", headers={"X-Request-ID": "mine-1"})
    assert answer.status_code == 500
    assert answer.json()["correlation_id"] == "mine-1"
    assert answer.headers["X-Request-ID"] == "mine-1"
    assert SECRET not in answer.text
    assert "Traceback" not in answer.text


def test_an_unknown_path_has_the_shape_of_other_refusals() -> None:
    with client() as open_:
        assert open_.get("/nothing").json()["detail"] == "Not Found"
        assert open_.delete("/things").status_code == 405


# Correlation ids


def test_a_correlation_id_comes_back_and_is_made_where_none_came() -> None:
    with client() as open_:
        assert open_.get("/things/a", headers={"X-Request-ID": "mine-1"}).headers["X-Request-ID"] == "mine-1"
        made = [open_.get("/things/a").headers["X-Request-ID"] for _ in range(2)]
        assert made[0] != made[1]
        assert all(made)


@pytest.mark.parametrize("given", ["x" * (LONGEST_CORRELATION_ID + 1), "a\tb", ""])
def test_a_correlation_id_that_would_spoil_the_log_is_replaced(given: str) -> None:
    with client() as open_:
        assert open_.get("/things/a", headers={"X-Request-ID": given}).headers["X-Request-ID"] != given


def test_refusals_of_the_middleware_have_a_correlation_id_too() -> None:
    with client() as open_:
        answer = open_.post("/things", content=long_body(), headers={"X-Request-ID": "mine-1"})
    assert (answer.status_code, answer.headers["X-Request-ID"]) == (413, "mine-1")


# Pages about itself


def test_it_is_ready_while_it_is_open() -> None:
    app = application()
    with TestClient(app) as open_:
        assert open_.get("/ready").status_code == 200
        app.state.open = False
        refused = open_.get("/ready")
        assert (refused.status_code, detail(refused)) == (503, "not open yet; wait")


def test_the_docs_load_nothing_of_another_host() -> None:
    with client() as open_:
        page = open_.get("/docs")
        assert page.status_code == 200
        named = re.findall(r"""(?:src|href|url)\s*[=:]\s*["']([^"']+)["']""", page.text)
        assert any(each.endswith(".js") for each in named)
        assert any(each.endswith(".css") for each in named)
        assert "/openapi.json" in named
        for each in named:
            at = urlsplit(urljoin("http://testserver/docs", each))
            assert at.netloc == "testserver", each
            assert open_.get(at.path).status_code == 200, each
        assert not re.findall(r"https?://(?!testserver)[^\s\"'<>]+", page.text)


def test_the_document_of_the_interface_names_the_refusals() -> None:
    with client() as open_:
        document = open_.get("/openapi.json").json()
    answers = document["paths"]["/things"]["post"]["responses"]
    assert {"200", "401", "403", "413", "422", "429", "500", "503"} <= set(answers)


def test_metrics_are_what_prometheus_reads() -> None:
    with client() as open_:
        for path in ("/things/a", "/things/b", "/nothing/1", "/nothing/2", "/broken"):
            open_.get(path)
        for made_up in ("MINE", "YOURS"):
            open_.request(made_up, "/things")
        answer = open_.get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain; version=")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    counted = {
        tuple(sample.labels[name] for name in ("method", "route", "status")): sample.value
        for sample in families["http_requests"].samples
        if sample.name == "http_requests_total"
    }
    # One series for all things, and one for whatever nobody serves: a client cannot make new ones.
    assert counted == {
        ("GET", "/things/{name}", "200"): 2,
        ("any", "unknown", "404"): 2,
        ("any", "/things", "405"): 2,
        ("GET", "/broken", "500"): 1,
    }
    durations = families["http_request_duration_seconds"]
    assert durations.type == "histogram"
    [count] = [
        sample.value
        for sample in durations.samples
        if sample.name.endswith("_count") and sample.labels["route"] == "/things/{name}"
    ]
    assert count == 2


def test_two_applications_in_one_process_count_apart() -> None:
    with client() as one, client() as other:
        one.get("/things/a")
        assert "/things/{name}" in one.get("/metrics").text
        assert "/things/{name}" not in other.get("/metrics").text


# In a process of its own, on a socket


@contextmanager
def served(**variables: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of the application in a child process."""
    code = f"from {main.__module__} import main; main()"
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env=variables,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stderr is not None
        yield process.stderr.readline().strip(), process
    finally:
        process.kill()
        process.communicate()


def test_each_request_is_one_line_of_json_with_its_correlation_id() -> None:
    with served() as (address, process):
        with httpx.Client(base_url=address, trust_env=False) as caller:
            for path in ("/ready", "/metrics", "/things/a", "/broken"):
                caller.get(path, headers={"X-Request-ID": f"asked-{path}"}, timeout=SECONDS)
        process.send_signal(signal.SIGTERM)
        said, complaints = process.communicate(timeout=SECONDS)
        assert (process.returncode, complaints) == (0, "")
    lines = [json.loads(line) for line in said.splitlines()]
    assert all(line["service"] == "things" and line["timestamp"] for line in lines)
    [read] = [line for line in lines if line["correlation_id"] == "asked-/things/a"]
    assert (read["message"], read["level"], read["status"]) == ("GET /things/a 200", "INFO", 200)
    assert read["milliseconds"] >= 0
    about = [line for line in lines if line["correlation_id"] == "asked-/broken"]
    assert [line["message"] for line in about if "milliseconds" in line] == ["GET /broken 500"]
    [trace] = [line for line in about if "exc_info" in line]
    assert SECRET in trace["exc_info"]
    # What probes and scrapers ask is not worth a line.
    assert not [line for line in lines if line["correlation_id"] in ("asked-/ready", "asked-/metrics")]
    # And the trace is there once, under its id.
    assert said.count("Traceback") == 1


@pytest.mark.parametrize(
    ("error", "said"),
    [(PlatformError("no disk; mount one"), "no disk; mount one"), (KeyError("x"), "Traceback")],
)
def test_what_keeps_a_service_from_starting_is_said_in_a_sentence_where_it_was_foreseen(
    error: Exception, said: str
) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        raise error
        yield

    sent: list[Message] = []

    async def receive() -> Message:
        return {"type": "lifespan.startup"}

    async def send(message: Message) -> None:
        sent.append(message)

    app = create_app("Broken", "For tests", Settings({}), lifespan, lambda app: None)
    with pytest.raises(type(error)):
        asyncio.run(app({"type": "lifespan", "state": {}}, receive, send))
    assert sent[0]["type"] == "lifespan.startup.failed"
    assert sent[0]["message"].startswith(said)
