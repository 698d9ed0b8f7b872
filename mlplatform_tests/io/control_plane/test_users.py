"""Users, their passwords and sessions, on a real database."""

from __future__ import annotations

import traceback
from datetime import timedelta
from typing import Any

import pytest
from argon2 import PasswordHasher
from sqlalchemy import select, text, update

from mlplatform.io.control_plane import passwords
from mlplatform.io.control_plane.audit import Actor, AuditLog
from mlplatform.io.control_plane.database import Database, DatabaseRefused
from mlplatform.io.control_plane.sessions import Session, Sessions
from mlplatform.io.control_plane.tables import refresh_tokens, sessions, users
from mlplatform.io.control_plane.users import (
    ADMINISTRATION,
    SCOPES,
    InvalidUser,
    LastAdministrator,
    UnknownUser,
    UserExists,
    Users,
)
from mlplatform_tests.io.racing import race

pytestmark = pytest.mark.usefixtures("cheap_passwords")
PASSWORD = "correct horse battery"
OTHER = "another one that is long"
ACTOR = Actor("1", "operator", "request", "192.0.2.1")
ASKER = Actor("", "unknown", "request", "192.0.2.1")


@pytest.fixture
def known(database: Database) -> Users:
    """`ada` may read jobs and see who did what; `root` administers."""
    known = Users(database)
    known.create("root", PASSWORD, [ADMINISTRATION], ACTOR)
    known.create("ada", PASSWORD, ["jobs:read", "audit:read"], ACTOR)
    return known


@pytest.fixture
def open_sessions(database: Database, known: Users) -> Sessions:
    return Sessions(database)


def log_in(open_sessions: Sessions, name: str = "ada", password: str = PASSWORD) -> tuple[Session, str]:
    found = open_sessions.log_in(name, password, [], ASKER)
    assert found
    return found


def rows(database: Database) -> list[tuple[str, str, str, str]]:
    page = AuditLog(database).page(1000)
    return [(row.principal, row.action, row.target, row.outcome) for row in reversed(page)]


# Users


def test_a_user_is_kept_without_the_password(database: Database, known: Users) -> None:
    with database.transaction() as connection:
        [first, second] = connection.scalars(select(users.c.password_hash)).all()
    assert first.startswith("$argon2id$")
    assert PASSWORD not in first
    assert first != second
    assert [user.name for user in known.page(10)] == ["ada", "root"]
    assert [user.name for user in known.page(1, after="ada")] == ["root"]


@pytest.mark.parametrize(
    ("name", "password", "scopes"),
    [
        ("", PASSWORD, []),
        ("Ada", PASSWORD, []),
        ("a da", PASSWORD, []),
        ("ada\n", PASSWORD, []),
        ("a" * 101, PASSWORD, []),
        ("bob", "short", []),
        ("bob", "x" * 1025, []),
        ("bob", PASSWORD, ["jobs:reed"]),
    ],
)
def test_what_cannot_be_is_refused(database: Database, name: str, password: str, scopes: list[str]) -> None:
    with pytest.raises(InvalidUser) as caught:
        Users(database).create(name, password, scopes, ACTOR)
    assert password not in str(caught.value)
    assert not Users(database).any()


def test_a_name_is_given_once_also_to_many_at_once(database: Database, known: Users) -> None:
    made = race(4, lambda _: known.create("bob", PASSWORD, [], ACTOR))
    assert sorted(type(each).__name__ for each in made) == ["User", "UserExists", "UserExists", "UserExists"]
    with pytest.raises(UserExists, match="bob"):
        known.create("bob", OTHER, [], ACTOR)
    assert rows(database).count(("operator", "create user", "bob", "success")) == 1


def test_the_first_user_is_made_once_by_those_who_start_together(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    # All have looked before one has made it.
    monkeypatch.setattr(Users, "any", lambda _: False)
    made = [each for each in race(4, lambda _: Users(database).create_first()) if each is not None]
    assert len(made) == 1
    [password] = made
    assert isinstance(password, str)
    session, _ = log_in(Sessions(database), "admin", password)
    assert session.scopes == set(SCOPES)
    monkeypatch.undo()
    assert Users(database).create_first() is None
    assert rows(database)[0] == ("platform", "create user", "admin", "success")


def test_who_is_changed_in_what_matters_is_logged_out(known: Users, open_sessions: Sessions) -> None:
    session, token = log_in(open_sessions)
    known.change("ada", ACTOR, scopes=["jobs:read"])
    found = open_sessions.find(session.id)
    assert found
    assert found.scopes == {"jobs:read"}

    known.change("ada", ACTOR, password=OTHER)
    assert open_sessions.find(session.id) is None
    assert open_sessions.refresh(token, ASKER) is None
    assert open_sessions.log_in("ada", PASSWORD, [], ASKER) is None

    session, token = log_in(open_sessions, password=OTHER)
    known.change("ada", ACTOR, disabled=True)
    assert open_sessions.log_in("ada", OTHER, [], ASKER) is None
    known.change("ada", ACTOR, disabled=False)
    # What was stolen before does not come back.
    assert open_sessions.find(session.id) is None
    assert open_sessions.refresh(token, ASKER) is None

    session, _ = log_in(open_sessions, password=OTHER)
    known.delete("ada", ACTOR)
    assert open_sessions.find(session.id) is None


def test_who_is_not_there_cannot_be_changed(known: Users) -> None:
    with pytest.raises(UnknownUser, match="bob"):
        known.change("bob", ACTOR, disabled=True)
    with pytest.raises(UnknownUser, match="bob"):
        known.delete("bob", ACTOR)


def test_somebody_who_may_change_users_is_always_left(database: Database, known: Users) -> None:
    changes: list[Any] = [
        lambda: known.delete("root", ACTOR),
        lambda: known.change("root", ACTOR, disabled=True),
        lambda: known.change("root", ACTOR, scopes=["jobs:read"]),
    ]
    before = rows(database)
    for change in changes:
        with pytest.raises(LastAdministrator, match=ADMINISTRATION):
            change()
    assert rows(database) == before

    known.change("ada", ACTOR, scopes=[ADMINISTRATION])
    ended = race(2, lambda number: known.delete(("root", "ada")[number], ACTOR))
    assert sorted(type(each).__name__ for each in ended) == ["LastAdministrator", "NoneType"]


# Passwords


@pytest.mark.parametrize(("name", "password"), [("ada", OTHER), ("nobody", PASSWORD), ("bob", PASSWORD)])
def test_whoever_is_refused_a_hash_was_verified(
    database: Database,
    known: Users,
    open_sessions: Sessions,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    password: str,
) -> None:
    known.create("bob", PASSWORD, [], ACTOR)
    known.change("bob", ACTOR, disabled=True)
    verified: list[str] = []
    verify = PasswordHasher.verify

    def watched(self: PasswordHasher, kept: str, given: str) -> bool:
        verified.append(kept)
        return verify(self, kept, given)

    monkeypatch.setattr(PasswordHasher, "verify", watched)
    assert open_sessions.log_in(name, password, [], ASKER) is None
    [kept] = verified
    # Also that of nobody is a hash that costs what all others do.
    assert not passwords.is_outdated(kept)
    who = "unknown" if name == "nobody" else name
    assert rows(database)[-1] == (who, "login", who, "refused")


def test_no_password_is_that_of_nobody() -> None:
    kept = passwords._nobodys()
    assert not passwords.is_outdated(kept)
    assert not passwords.matches(kept, PASSWORD)
    assert not passwords.matches(None, PASSWORD)
    assert not passwords.matches("no hash", PASSWORD)


def test_passwords_are_hashed_at_the_costs_of_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert passwords.hashed(PASSWORD).startswith("$argon2id$v=19$m=65536,t=3,p=4$")


def test_a_hash_of_other_costs_is_made_anew_at_the_next_login(
    database: Database, open_sessions: Sessions
) -> None:
    cheap = PasswordHasher(time_cost=2, memory_cost=64).hash(PASSWORD)
    with database.transaction() as connection:
        connection.execute(update(users).where(users.c.name == "ada").values(password_hash=cheap))
    log_in(open_sessions)
    with database.transaction() as connection:
        kept = connection.scalar(select(users.c.password_hash).where(users.c.name == "ada"))
    assert kept
    assert kept != cheap
    assert not passwords.is_outdated(kept)
    log_in(open_sessions)


def test_who_is_disabled_while_the_password_is_verified_is_not_let_in(
    known: Users, open_sessions: Sessions, monkeypatch: pytest.MonkeyPatch
) -> None:
    verify = PasswordHasher.verify

    def slow(self: PasswordHasher, kept: str, given: str) -> bool:
        known.change("ada", ACTOR, disabled=True)
        return verify(self, kept, given)

    monkeypatch.setattr(PasswordHasher, "verify", slow)
    assert open_sessions.log_in("ada", PASSWORD, [], ASKER) is None


# Sessions


def test_a_session_has_the_scopes_that_were_asked_for_and_are_the_users(open_sessions: Sessions) -> None:
    some = open_sessions.log_in("ada", PASSWORD, ["jobs:read", ADMINISTRATION, "nonsense"], ASKER)
    assert some
    session, token = some
    assert session.scopes == {"jobs:read"}
    again = open_sessions.refresh(token, ASKER)
    assert again
    assert again[0] == session
    everything, _ = log_in(open_sessions)
    assert everything.scopes == {"jobs:read", "audit:read"}


def test_a_refresh_token_is_good_for_one_use_and_the_second_ends_the_session(
    database: Database, open_sessions: Sessions
) -> None:
    session, first = log_in(open_sessions)
    other, untouched = log_in(open_sessions)
    refreshed = open_sessions.refresh(first, ASKER)
    assert refreshed
    second = refreshed[1]
    assert second != first

    assert open_sessions.refresh(first, ASKER) is None
    assert open_sessions.refresh(second, ASKER) is None
    assert open_sessions.find(session.id) is None
    assert rows(database)[-1] == ("ada", "refresh with a token that was used", "ada", "refused")

    assert open_sessions.find(other.id)
    assert open_sessions.refresh(untouched, ASKER)


def test_of_refreshes_at_once_one_is_answered_and_then_the_session_has_ended(
    open_sessions: Sessions,
) -> None:
    for _ in range(5):
        session, token = log_in(open_sessions)
        answers = race(4, lambda _, token=token: open_sessions.refresh(token, ASKER))
        good = [each for each in answers if isinstance(each, tuple)]
        assert len(good) == 1
        assert answers.count(None) == 3
        assert open_sessions.find(session.id) is None
        assert open_sessions.refresh(good[0][1], ASKER) is None


def test_a_user_who_is_removed_while_they_refresh_leaves_nothing_that_waits(
    known: Users, open_sessions: Sessions
) -> None:
    for _ in range(5):
        _, token = log_in(open_sessions)
        acts: list[Any] = [
            lambda token=token: open_sessions.refresh(token, ASKER),
            lambda: known.change("ada", ACTOR, password=PASSWORD),
            lambda token=token: open_sessions.refresh(token, ASKER),
        ]
        answers = race(3, lambda number, acts=acts: acts[number]())
        assert not [each for each in answers if isinstance(each, Exception)]


def test_a_refresh_token_that_was_never_given_is_not_good(open_sessions: Sessions) -> None:
    session, token = log_in(open_sessions)
    assert open_sessions.refresh(token[:-1], ASKER) is None
    assert open_sessions.refresh("", ASKER) is None
    assert open_sessions.find(session.id)


def test_refresh_tokens_are_not_kept_in_clear(database: Database, open_sessions: Sessions) -> None:
    _, token = log_in(open_sessions)
    with database.transaction() as connection:
        kept = connection.scalars(select(refresh_tokens.c.digest)).all()
    assert [len(each) for each in kept] == [32]
    assert token.encode() not in kept


def test_a_session_ends_for_all_processes(database: Database, open_sessions: Sessions) -> None:
    session, token = log_in(open_sessions)
    replica = Sessions(database)
    assert replica.find(session.id) == session
    open_sessions.end(session.id, ACTOR)
    assert replica.find(session.id) is None
    assert replica.refresh(token, ASKER) is None


def test_a_session_that_is_over_is_not_found_and_later_removed(
    database: Database, open_sessions: Sessions
) -> None:
    session, token = log_in(open_sessions)
    with database.transaction() as connection:
        connection.execute(update(sessions).values(expires_at=text("now() - interval '1 second'")))
    assert open_sessions.find(session.id) is None
    assert open_sessions.refresh(token, ASKER) is None
    other, _ = log_in(open_sessions)
    with database.transaction() as connection:
        assert connection.scalars(select(sessions.c.id)).all() == [other.id]


def test_a_service_has_a_session_of_its_own(known: Users, open_sessions: Sessions) -> None:
    session, _ = log_in(open_sessions)
    minutes = timedelta(minutes=5)
    service = open_sessions.begin_service(session.user_id, "ci", ["jobs:read"], minutes, ACTOR)
    assert service
    assert service.name == "ada/ci"
    assert service.scopes == {"jobs:read"}
    assert service.expires_at < session.expires_at
    open_sessions.end(session.id, ACTOR)
    assert open_sessions.find(service.id) == service
    known.change("ada", ACTOR, disabled=True)
    assert open_sessions.find(service.id) is None
    assert open_sessions.begin_service(session.user_id, "ci", [], minutes, ACTOR) is None


# The audit log


def test_the_audit_log_is_read_in_pages_from_the_newest(database: Database) -> None:
    log = AuditLog(database)
    for number in range(5):
        log.add(ACTOR, "POST", f"/{number}")
    pages = []
    before = None
    while page := log.page(2, before):
        pages.append([row.target for row in page])
        before = page[-1].id
    assert pages == [["/4", "/3"], ["/2", "/1"], ["/0"]]
    [row] = log.page(1)
    assert (row.principal_id, row.principal, row.request_id, row.address, row.outcome) == (
        "1",
        "operator",
        "request",
        "192.0.2.1",
        "success",
    )
    assert row.at.tzinfo is not None


def test_no_secret_is_in_any_row_of_the_database(database: Database, known: Users) -> None:
    open_sessions = Sessions(database)
    _, first = log_in(open_sessions)
    refreshed = open_sessions.refresh(first, ASKER)
    assert refreshed
    open_sessions.log_in("ada", OTHER, [], ASKER)
    # Typed into the wrong field.
    open_sessions.log_in(OTHER, PASSWORD, [], ASKER)
    known.change("root", ACTOR, password=OTHER)
    with database.transaction() as connection:
        for table in ("users", "sessions", "refresh_tokens", "audit_log", "events"):
            for row in connection.execute(text(f"SELECT t::text FROM {table} t")):  # noqa: S608 - names above
                for secret in (PASSWORD, OTHER, first, refreshed[1]):
                    assert secret not in row[0]
                    assert secret.encode().hex() not in row[0]


def test_an_error_of_the_database_does_not_tell_what_it_was_given(database: Database, known: Users) -> None:
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE users RENAME COLUMN scopes TO gone"))
    with pytest.raises(DatabaseRefused) as caught:
        known.create("bob", PASSWORD, [], ACTOR)
    told = "".join(traceback.format_exception(caught.value))
    assert "INSERT INTO users" in told
    assert "$argon2id$" not in told
    assert PASSWORD not in told


def test_a_change_that_cannot_be_told_is_not_made(database: Database, known: Users) -> None:
    with database.transaction() as connection:
        connection.execute(text("ALTER TABLE audit_log RENAME TO gone"))
    with pytest.raises(DatabaseRefused, match="audit_log"):
        known.delete("ada", ACTOR)
    assert "ada" in [user.name for user in known.page(10)]
