"""Logging in, what a token is good for, and what is written down of it; over HTTP, on a real database."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from argon2 import PasswordHasher
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlplatform.io.control_plane.audit import AuditLog
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.users import PLATFORM, SCOPES, Users
from mlplatform.services.control_plane.tokens import AccessTokens
from mlplatform.settings import ConfigurationError
from mlplatform_tests.io.racing import race
from mlplatform_tests.services.control_plane.secured import (
    KEY,
    PASSWORD,
    application,
    bearer,
    create_user,
    log_in,
)

pytestmark = pytest.mark.usefixtures("cheap_passwords")
AUTH = "/api/v1/auth"
OTHER = "another one that is long"
STATIC = "a token of a machine"
TOKENS = json.dumps({hashlib.sha256(STATIC.encode()).hexdigest(): ["metrics:read", "jobs:read"]})


@pytest.fixture
def client(database: Database) -> Iterator[TestClient]:
    """Who comes to a secured service; `ada` may do everything."""
    create_user(database, "ada")
    with TestClient(application(database)) as client:
        yield client


def refresh(client: TestClient, token: str) -> httpx.Response:
    return client.post(f"{AUTH}/refresh", json={"refresh_token": token})


def rows(database: Database) -> list[tuple[str, str, str, str]]:
    page = AuditLog(database).page(1000)
    return [(row.principal, row.action, row.target, row.outcome) for row in reversed(page)]


# Login


FORM = "application/x-www-form-urlencoded"


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (json.dumps({"username": "ada", "password": PASSWORD}), "application/json"),
        # As `curl -d` sends it.
        (json.dumps({"username": "ada", "password": PASSWORD}), FORM),
        # As Swagger UI does.
        (f"grant_type=password&username=ada&password={PASSWORD}&scope=&client_id=&client_secret=", FORM),
        (f"username=ada&password={PASSWORD.replace(' ', '+')}", None),
    ],
    ids=["JSON", "JSON by curl", "form", "form without a type"],
)
def test_a_user_logs_in_with_a_form_or_json(client: TestClient, body: str, kind: str | None) -> None:
    headers = {"Content-Type": kind} if kind else {}
    answer = client.post(f"{AUTH}/login", content=body, headers=headers)
    assert answer.status_code == 200
    assert answer.headers["Cache-Control"] == "no-store"
    said = answer.json()
    assert set(said) == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert (said["token_type"], said["expires_in"]) == ("bearer", 900)
    assert set(said["scope"].split()) == set(SCOPES)
    me = client.get(f"{AUTH}/me", headers=bearer(answer)).json()
    assert (me["name"], me["type"], me["scopes"]) == ("ada", "user", sorted(SCOPES))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"username": "ada"}',
        b'{"username": "ada", "password": 1}',
        b"username=ada",
        b"username=ada&password=" + b"x" * 1025,
        b"grant_type=implicit&username=ada&password=x",
    ],
)
def test_what_is_no_login_is_said_without_repeating_it(client: TestClient, body: bytes) -> None:
    refused = client.post(f"{AUTH}/login", content=body)
    assert refused.status_code == 422
    assert all(set(each) == {"type", "loc", "msg"} for each in refused.json()["detail"])
    assert client.post(f"{AUTH}/login", content=b"username=\xff&password=x").status_code == 400


def test_who_is_refused_is_not_told_why(database: Database, client: TestClient) -> None:
    create_user(database, "bob", [])
    Users(database).change("bob", PLATFORM, disabled=True)
    answers = [
        log_in(client, name, password)
        for name, password in (("ada", OTHER), ("nobody", PASSWORD), ("bob", PASSWORD), ("a\0", PASSWORD))
    ]
    assert [answer.status_code for answer in answers] == [401] * 4
    told = [{**answer.json(), "correlation_id": None} for answer in answers]
    assert told == [told[0]] * 4
    assert {answer.headers["WWW-Authenticate"] for answer in answers} == {"Bearer"}
    assert rows(database)[-4:] == [
        (name, "login", name, "refused") for name in ("ada", "unknown", "bob", "unknown")
    ]


def test_a_token_has_the_scopes_that_were_asked_for(client: TestClient) -> None:
    answer = log_in(client, "ada", scope="jobs:read nonsense")
    assert answer.json()["scope"] == "jobs:read"
    assert client.get("/api/v1/jobs", headers=bearer(answer)).status_code == 200
    refused = client.post("/api/v1/jobs", headers=bearer(answer))
    assert refused.status_code == 403
    assert "jobs:write" in refused.json()["detail"]


def test_after_ten_wrong_passwords_none_is_looked_at(
    database: Database, client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    create_user(database, "bob")
    log_in(client, "ada")
    assert [log_in(client, "ada", OTHER).status_code for _ in range(10)] == [401] * 10
    monkeypatch.setattr(PasswordHasher, "verify", lambda *_: pytest.fail("a password was verified"))
    refused = log_in(client, "ada")
    assert refused.status_code == 429
    assert int(refused.headers["Retry-After"]) > 0
    monkeypatch.undo()
    # Others are not kept out, nor the same one from elsewhere.
    assert log_in(client, "bob").status_code == 200
    elsewhere = TestClient(client.app, client=("192.0.2.7", 1))
    assert log_in(elsewhere, "ada").status_code == 200


def test_one_address_cannot_try_all_users(client: TestClient) -> None:
    answers = [log_in(client, f"user{number}").status_code for number in range(101)]
    assert answers == [401] * 100 + [429]


def test_who_gives_the_right_password_may_do_so_often(client: TestClient) -> None:
    assert [log_in(client, "ada").status_code for _ in range(12)] == [200] * 12


# Tokens


@pytest.mark.parametrize(
    "headers",
    [{}, bearer("nobody's"), bearer(""), {"Authorization": f"Basic {KEY}"}],
    ids=["none", "unknown", "empty", "another scheme"],
)
def test_without_a_good_token_nothing_is_told(client: TestClient, headers: dict[str, str]) -> None:
    for path in ("/api/v1/jobs", f"{AUTH}/me", "/metrics"):
        refused = client.get(path, headers=headers)
        assert refused.status_code == 401
        assert refused.headers["WWW-Authenticate"] == "Bearer"
        assert refused.headers["Content-Type"] == "application/problem+json"


def test_a_refresh_token_is_no_access_token_nor_the_other_way_round(client: TestClient) -> None:
    said = log_in(client, "ada").json()
    assert client.get(f"{AUTH}/me", headers=bearer(said["refresh_token"])).status_code == 401
    assert refresh(client, said["access_token"]).status_code in (401, 422)


def test_a_token_of_another_kind_than_its_session_is_refused(client: TestClient) -> None:
    token = log_in(client, "ada").json()["access_token"]
    claims = AccessTokens(KEY.encode()).read(token)
    forged = AccessTokens(KEY.encode()).make(claims.user_id, claims.session_id, claims.scopes, "service", 60)
    assert client.get(f"{AUTH}/me", headers=bearer(forged)).status_code == 401


def test_after_a_rotation_of_the_key_old_tokens_are_good(database: Database, client: TestClient) -> None:
    token = log_in(client, "ada")
    variables = {"MLPLATFORM_JWT_KEY": "k" * 32, "MLPLATFORM_JWT_PREVIOUS_KEY": KEY}
    with TestClient(application(database, **variables)) as rotated:
        assert rotated.get(f"{AUTH}/me", headers=bearer(token)).status_code == 200
    with TestClient(application(database, MLPLATFORM_JWT_KEY="k" * 32)) as other:
        assert other.get(f"{AUTH}/me", headers=bearer(token)).status_code == 401


def test_a_static_token_is_good_here_too(database: Database) -> None:
    with TestClient(application(database, MLPLATFORM_API_TOKENS=TOKENS)) as client:
        assert client.get("/metrics", headers=bearer(STATIC)).status_code == 200
        assert client.get("/api/v1/jobs", headers=bearer(STATIC)).status_code == 200
        assert client.post("/api/v1/jobs", headers=bearer(STATIC)).status_code == 403
        me = client.get(f"{AUTH}/me", headers=bearer(STATIC)).json()
        assert me["type"] == "static"
        assert me["name"] == f"token {hashlib.sha256(STATIC.encode()).hexdigest()[:8]}"
        assert client.post(f"{AUTH}/logout", headers=bearer(STATIC)).status_code == 409
        asked = {"name": "ci", "scopes": ["jobs:read"]}
        assert client.post(f"{AUTH}/service-tokens", json=asked, headers=bearer(STATIC)).status_code == 403


def test_a_token_lets_into_the_metrics_by_its_scope(client: TestClient) -> None:
    assert client.get("/metrics", headers=bearer(log_in(client, "ada"))).status_code == 200
    poor = log_in(client, "ada", scope="jobs:read")
    assert client.get("/metrics", headers=bearer(poor)).status_code == 403


# Refresh and logout


def test_a_refresh_token_is_good_once_and_again_ends_the_session(client: TestClient) -> None:
    first = log_in(client, "ada", scope="jobs:read").json()
    second = refresh(client, first["refresh_token"])
    assert second.status_code == 200
    assert second.json()["scope"] == "jobs:read"
    assert client.get(f"{AUTH}/me", headers=bearer(second)).status_code == 200

    assert refresh(client, first["refresh_token"]).status_code == 401
    assert refresh(client, second.json()["refresh_token"]).status_code == 401
    for token in (first["access_token"], second.json()["access_token"]):
        assert client.get(f"{AUTH}/me", headers=bearer(token)).status_code == 401


def test_a_refresh_may_be_a_form(client: TestClient) -> None:
    token = log_in(client, "ada").json()["refresh_token"]
    form = {"grant_type": "refresh_token", "refresh_token": token, "client_id": ""}
    assert client.post(f"{AUTH}/refresh", data=form).status_code == 200


def test_two_refreshes_at_once_on_two_replicas_do_not_both_succeed(
    database: Database, client: TestClient
) -> None:
    with TestClient(application(database)) as replica:
        token = log_in(client, "ada").json()["refresh_token"]
        answers = race(2, lambda number: refresh((client, replica)[number], token))
        statuses = sorted(each.status_code for each in answers if isinstance(each, httpx.Response))
        assert statuses == [200, 401]


def test_a_logout_is_seen_by_another_replica(database: Database, client: TestClient) -> None:
    with TestClient(application(database)) as replica:
        token = log_in(client, "ada")
        other = log_in(client, "ada")
        assert replica.get(f"{AUTH}/me", headers=bearer(token)).status_code == 200
        assert client.post(f"{AUTH}/logout", headers=bearer(token)).status_code == 204
        for each in (client, replica):
            assert each.get(f"{AUTH}/me", headers=bearer(token)).status_code == 401
            assert refresh(each, token.json()["refresh_token"]).status_code == 401
        assert replica.get(f"{AUTH}/me", headers=bearer(other)).status_code == 200


# Service tokens


def test_a_user_gives_a_service_some_of_their_scopes(database: Database, client: TestClient) -> None:
    user = bearer(log_in(client, "ada", scope="jobs:read jobs:write"))
    asked = {"name": "ci", "scopes": ["jobs:read"]}
    given = client.post(f"{AUTH}/service-tokens", json=asked, headers=user)
    assert given.status_code == 201
    assert set(given.json()) == {"access_token", "token_type", "expires_in", "scope"}
    assert given.json()["expires_in"] == 300
    claims = jwt.decode(given.json()["access_token"], options={"verify_signature": False})
    assert (claims["type"], claims["exp"] - claims["iat"]) == ("service", 300)

    me = client.get(f"{AUTH}/me", headers=bearer(given)).json()
    assert (me["name"], me["type"], me["scopes"]) == ("ada/ci", "service", ["jobs:read"])
    assert client.post("/api/v1/jobs", headers=bearer(given)).status_code == 403
    # It cannot go on for ever by giving tokens to itself.
    assert client.post(f"{AUTH}/service-tokens", json=asked, headers=bearer(given)).status_code == 403

    assert client.post(f"{AUTH}/logout", headers=bearer(given)).status_code == 204
    assert client.get(f"{AUTH}/me", headers=bearer(given)).status_code == 401
    assert client.get(f"{AUTH}/me", headers=user).status_code == 200
    assert rows(database)[-2:] == [
        ("ada", "service token (jobs:read)", "ada/ci", "success"),
        ("ada/ci", "logout", "ada/ci", "success"),
    ]


@pytest.mark.parametrize(
    ("asked", "status"),
    [
        ({"name": "ci", "scopes": ["users:admin"]}, 403),
        ({"name": "ci", "scopes": ["jobs:reed"]}, 403),
        ({"name": "ci", "scopes": ["jobs:read"], "expires_in": 86401}, 422),
        ({"name": "ci", "scopes": ["jobs:read"], "expires_in": 0}, 422),
        ({"name": "", "scopes": []}, 422),
        ({"name": "ci", "scopes": [], "surplus": 1}, 422),
    ],
)
def test_nobody_gives_what_they_do_not_have(client: TestClient, asked: Any, status: int) -> None:
    user = bearer(log_in(client, "ada", scope="jobs:read"))
    assert client.post(f"{AUTH}/service-tokens", json=asked, headers=user).status_code == status


def test_a_service_has_no_more_than_its_user_has_now(database: Database, client: TestClient) -> None:
    create_user(database, "bob", ["jobs:read", "jobs:write"])
    asked = {"name": "ci", "scopes": ["jobs:write"]}
    given = client.post(f"{AUTH}/service-tokens", json=asked, headers=bearer(log_in(client, "bob")))
    assert client.post("/api/v1/jobs", headers=bearer(given)).status_code == 201
    admin = bearer(log_in(client, "ada"))
    client.patch(f"{AUTH}/users/bob", json={"scopes": ["jobs:read"]}, headers=admin)
    assert client.post("/api/v1/jobs", headers=bearer(given)).status_code == 403
    client.patch(f"{AUTH}/users/bob", json={"disabled": True}, headers=admin)
    assert client.post("/api/v1/jobs", headers=bearer(given)).status_code == 401


# Users


def test_users_are_made_changed_and_removed(database: Database, client: TestClient) -> None:
    admin = bearer(log_in(client, "ada"))
    new = {"name": "bob", "password": PASSWORD, "scopes": ["jobs:read"]}
    made = client.post(f"{AUTH}/users", json=new, headers=admin)
    assert made.status_code == 201
    assert set(made.json()) == {"id", "name", "scopes", "disabled", "created_at"}
    assert client.post(f"{AUTH}/users", json=new, headers=admin).status_code == 409

    bob = bearer(log_in(client, "bob"))
    changed = client.patch(f"{AUTH}/users/bob", json={"password": OTHER}, headers=admin)
    assert changed.status_code == 200
    assert client.get(f"{AUTH}/me", headers=bob).status_code == 401
    assert log_in(client, "bob", OTHER).status_code == 200
    assert client.patch(f"{AUTH}/users/bob", json={}, headers=admin).json()["scopes"] == ["jobs:read"]

    assert client.delete(f"{AUTH}/users/bob", headers=admin).status_code == 204
    assert client.delete(f"{AUTH}/users/bob", headers=admin).status_code == 404
    assert client.patch(f"{AUTH}/users/bob", json={}, headers=admin).status_code == 404
    assert client.delete(f"{AUTH}/users/ada", headers=admin).status_code == 409
    told = [row for row in rows(database) if row[2] == "bob" and "user" in row[1]]
    assert [row[:2] for row in told] == [
        ("ada", "create user"),
        ("ada", "change user (password)"),
        ("ada", "change user (nothing)"),
        ("ada", "delete user"),
    ]


@pytest.mark.parametrize(
    "user",
    [
        {"name": "Bob", "password": PASSWORD},
        {"name": "bob", "password": "brief"},
        {"name": "bob", "password": PASSWORD, "scopes": ["jobs:reed"]},
        {"name": "bob", "password": PASSWORD, "surplus": 1},
    ],
)
def test_a_user_that_cannot_be_is_refused(client: TestClient, user: Any) -> None:
    refused = client.post(f"{AUTH}/users", json=user, headers=bearer(log_in(client, "ada")))
    assert refused.status_code == 422
    assert user["password"] not in refused.text


def follow(client: TestClient, path: str, headers: dict[str, str]) -> list[list[Any]]:
    pages = []
    while path:
        page = client.get(path, headers=headers)
        assert page.status_code == 200
        pages.append(page.json())
        path = page.links.get("next", {}).get("url", "")
    return pages


def test_users_and_rows_come_in_pages(database: Database, client: TestClient) -> None:
    for name in ("bob", "cem", "dan"):
        create_user(database, name, [])
    admin = bearer(log_in(client, "ada"))
    pages = follow(client, f"{AUTH}/users?limit=2", admin)
    assert [[user["name"] for user in page] for page in pages] == [["ada", "bob"], ["cem", "dan"]]
    pages = follow(client, "/api/v1/audit?limit=2", admin)
    assert [len(page) for page in pages] == [2, 2, 1]
    ids = [row["id"] for page in pages for row in page]
    assert ids == sorted(ids, reverse=True)
    for query in ("limit=0", "limit=1001", "cursor=x", "cursor=-1"):
        assert client.get(f"/api/v1/audit?{query}", headers=admin).status_code == 422


# The audit log


def test_writes_that_succeeded_are_rows(database: Database, client: TestClient) -> None:
    user = bearer(log_in(client, "ada"))
    before = rows(database)
    assert client.get("/api/v1/jobs", headers=user).status_code == 200
    assert client.post("/api/v1/jobs?name=taken", headers=user).status_code == 409
    assert client.post("/api/v1/jobs").status_code == 401
    assert rows(database) == before
    written = client.post("/api/v1/jobs", headers={**user, "X-Request-ID": "mine"})
    assert written.status_code == 201
    [row] = client.get("/api/v1/audit?limit=1", headers=user).json()
    assert row["principal_id"] == client.get(f"{AUTH}/me", headers=user).json()["id"]
    del row["id"], row["at"], row["principal_id"]
    assert row == {
        "principal": "ada",
        "action": "POST",
        "target": "/api/v1/jobs",
        "outcome": "success",
        "request_id": "mine",
        "address": "testclient",
    }


def test_a_row_that_cannot_be_written_is_an_error_of_the_log(
    database: Database, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    user = bearer(log_in(client, "ada"))
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE audit_log RENAME TO gone"))
    assert client.post("/api/v1/jobs", headers=user).status_code == 201
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "no row of: POST /api/v1/jobs by ada" in record.getMessage()


def test_each_login_is_a_row_with_where_it_came_from(database: Database, client: TestClient) -> None:
    answer = log_in(client, "ada")
    [row] = AuditLog(database).page(1)
    assert (row.principal, row.action, row.outcome, row.address) == (
        "ada",
        "login",
        "success",
        "testclient",
    )
    assert row.request_id == answer.headers["X-Request-ID"]


def test_no_secret_is_in_a_log_a_row_or_an_error(
    database: Database, client: TestClient, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secrets = [PASSWORD, OTHER, KEY, "wrong password of ada", "typed into the name"]
    answers = [
        log_in(client, "ada", "wrong password of ada"),
        log_in(client, "typed into the name", PASSWORD),
        client.post(f"{AUTH}/login", json={"username": "ada", "password": [OTHER]}),
    ]
    first = log_in(client, "ada").json()
    user = bearer(first["access_token"])
    second = refresh(client, first["refresh_token"]).json()
    given = client.post(f"{AUTH}/service-tokens", json={"name": "ci", "scopes": ["jobs:read"]}, headers=user)
    secrets += [first["access_token"], first["refresh_token"], second["access_token"]]
    secrets += [second["refresh_token"], given.json()["access_token"]]
    answers += [
        client.post("/api/v1/jobs", headers=user),
        client.post(f"{AUTH}/users", json={"name": "bob", "password": OTHER}, headers=user),
        client.post(f"{AUTH}/users", json={"name": "B", "password": OTHER}, headers=user),
        client.patch(f"{AUTH}/users/bob", json={"password": PASSWORD}, headers=user),
        refresh(client, first["refresh_token"]),
        client.get(f"{AUTH}/me", headers=user),
        client.get(f"{AUTH}/me", headers=bearer(second["refresh_token"])),
    ]
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE audit_log RENAME TO gone"))
    with TestClient(client.app, raise_server_exceptions=False) as broken:
        answers.append(log_in(broken, "ada"))
    assert answers[-1].status_code == 500
    with database.transaction() as connection:
        tables = ["users", "sessions", "refresh_tokens", "gone", "events"]
        kept = [
            line
            for table in tables
            for line in connection.scalars(text(f"SELECT t::text FROM {table} t"))  # noqa: S608
        ]
    formatted = [logging.Formatter().format(record) for record in caplog.records]
    assert len(formatted) > 10
    for said in (*formatted, *kept, *(answer.text for answer in answers)):
        for secret in secrets:
            assert secret not in said


# Starting


@pytest.mark.parametrize("environment", ["compose", "kubernetes"])
def test_outside_local_there_must_be_a_user(database: Database, environment: str) -> None:
    shown: list[str] = []
    app = application(database, shown.append, MLPLATFORM_ENV=environment)
    with pytest.raises(ConfigurationError, match="mlplatform users create"), TestClient(app):
        pass
    assert shown == []
    assert not Users(database).any()
    create_user(database, "ada")
    with TestClient(application(database, MLPLATFORM_ENV=environment)) as client:
        assert client.get("/api/v1/jobs").status_code == 401
        assert client.get("/api/v1/jobs", headers=bearer(log_in(client, "ada"))).status_code == 200


def test_outside_local_there_must_be_a_key(database: Database) -> None:
    with pytest.raises(ConfigurationError, match="MLPLATFORM_JWT_KEY is not set"):
        application(database, MLPLATFORM_ENV="compose", MLPLATFORM_JWT_KEY="")


def test_a_first_user_is_made_and_shown_once_by_replicas_that_start_together(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown: list[str] = []
    apps = [application(database, shown.append) for _ in range(3)]
    with ExitStack() as stack:
        clients = race(3, lambda number: stack.enter_context(TestClient(apps[number])))
        [client, *_] = [each for each in clients if isinstance(each, TestClient)]
        assert len(clients) == 3
        [told] = shown
        password = told.split("password ")[1].split("\n")[0]
        answer = log_in(client, "admin", password)
        assert set(answer.json()["scope"].split()) == set(SCOPES)
        for record in caplog.records:
            assert password not in record.getMessage()


def test_in_local_nobody_is_asked_who_they_are_unless_they_say(database: Database, tmp_path: Path) -> None:
    variables = {"MLPLATFORM_DATA_DIRECTORY": str(tmp_path), "MLPLATFORM_JWT_KEY": ""}
    app = application(database, MLPLATFORM_AUTHENTICATION="optional", **variables)
    create_user(database, "ada")
    with TestClient(app) as client:
        assert client.get("/api/v1/jobs").status_code == 200
        assert client.get("/metrics").status_code == 200
        assert client.post("/api/v1/jobs").status_code == 201
        assert rows(database)[-1] == ("local", "POST", "/api/v1/jobs", "success")
        me = client.get(f"{AUTH}/me").json()
        assert (me["name"], me["type"], me["scopes"]) == ("local", "local", sorted(SCOPES))
        assert client.post(f"{AUTH}/logout").status_code == 409
        poor = bearer(log_in(client, "ada", scope="jobs:read"))
        assert client.get(f"{AUTH}/me", headers=poor).json()["name"] == "ada"
        assert client.post("/api/v1/jobs", headers=poor).status_code == 403
        assert client.get("/api/v1/jobs", headers=bearer("nonsense")).status_code == 401
    # The key stays, and so do tokens.
    with TestClient(application(database, **variables)) as client:
        assert client.get(f"{AUTH}/me", headers=poor).json()["name"] == "ada"


def test_static_tokens_secure_in_local_too(database: Database) -> None:
    variables = {"MLPLATFORM_AUTHENTICATION": "optional", "MLPLATFORM_API_TOKENS": TOKENS}
    with TestClient(application(database, **variables)) as client:
        assert client.get("/api/v1/jobs").status_code == 401


# The document


def test_swagger_ui_can_log_in(client: TestClient) -> None:
    document = client.get("/openapi.json").json()
    flow = document["components"]["securitySchemes"]["login"]["flows"]["password"]
    assert flow["scopes"] == SCOPES
    form = {"grant_type": "password", "username": "ada", "password": PASSWORD, "scope": "jobs:read"}
    assert client.post(flow["tokenUrl"], data=form).status_code == 200
    assert document["paths"]["/api/v1/jobs"]["post"]["security"] == [
        {"HTTPBearer": ["jobs:write"]},
        {"login": ["jobs:write"]},
    ]
    body = document["paths"][f"{AUTH}/login"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "application/x-www-form-urlencoded"}
    assert body["application/json"]["schema"]["properties"]["password"]["format"] == "password"
