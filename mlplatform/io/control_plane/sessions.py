"""Who has logged in, until when; refresh tokens, which are good for one use."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Collection
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Row, Select, delete, false, func, insert, select, update

from mlplatform.io.control_plane.audit import Actor, record
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.passwords import hashed, is_outdated, matches
from mlplatform.io.control_plane.tables import refresh_tokens, sessions, users
from mlplatform.io.control_plane.users import NAME

# Then people give their password again.
LIFE = timedelta(days=7)
SWEPT_AT_ONCE = 1000


@dataclass(frozen=True)
class Session:
    """What a user was let in for.

    Attributes:
        service: the name of the service that has it; None: the user logged in.
        scopes: those of the session that the user still has.
    """

    id: UUID
    user_id: UUID
    user: str
    service: str | None
    scopes: frozenset[str]
    expires_at: datetime

    @property
    def name(self) -> str:
        """Of whoever has it, for people."""
        return f"{self.user}/{self.service}" if self.service else self.user


class Sessions:
    """The sessions of a database. How each begins and ends is in the audit log."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def log_in(
        self, name: str, password: str, scopes: Collection[str], asker: Actor
    ) -> tuple[Session, str] | None:
        """Lets a user in, with those of the scopes that are theirs.

        Args:
            scopes: none asks for all.
            asker: where the request came from; who it was is found out here.

        Returns:
            The session with its first refresh token; None: user and password do not belong together. It
            takes as long to find out that there is no such user, or that they are disabled.
        """
        with self._database.transaction() as connection:
            # Of what is no name at all, PostgreSQL may refuse to be asked.
            query = select(users).where(users.c.name == name if re.fullmatch(NAME, name) else false())
            user = connection.execute(query).first()
        # In no transaction, since it takes long.
        right = matches(user.password_hash if user else None, password)
        # A name that nobody has may be a password in the wrong field.
        who = replace(asker, id=str(user.id), name=user.name) if user else asker
        with self._database.transaction() as connection:
            known = _unchanged(connection, user) if user and right else None
            if known is None:
                record(connection, who, "login", who.name, "refused")
                return None
            _sweep(connection)
            if is_outdated(known.password_hash):
                values = {"password_hash": hashed(password)}
                connection.execute(update(users).where(users.c.id == known.id).values(values))
            allowed = frozenset(known.scopes)
            session = _begin(connection, known, None, allowed & set(scopes) if scopes else allowed, LIFE)
            record(connection, who, "login", known.name)
            return session, _refresh_token(connection, session)

    def refresh(self, token: str, asker: Actor) -> tuple[Session, str] | None:
        """Takes a refresh token for another one; who shows one again ends the session, since it was stolen.

        Returns:
            None: the token is not good, or no more.
        """
        digest = _digest(token)
        with self._database.transaction() as connection:
            session_id = connection.scalar(
                select(refresh_tokens.c.session_id).where(refresh_tokens.c.digest == digest)
            )
            # The session first, as whoever ends it does: so nobody waits for each other.
            query = _alive(session_id).with_for_update(of=sessions)
            session = _session(connection.execute(query).first()) if session_id else None
            if session is None:
                return None
            who = replace(asker, id=str(session.user_id), name=session.name)
            unused = (refresh_tokens.c.digest == digest) & ~refresh_tokens.c.used
            if not connection.execute(update(refresh_tokens).where(unused).values(used=True)).rowcount:
                connection.execute(delete(sessions).where(sessions.c.id == session.id))
                record(connection, who, "refresh with a token that was used", session.name, "refused")
                return None
            record(connection, who, "refresh", session.name)
            return session, _refresh_token(connection, session)

    def begin_service(
        self, user_id: UUID, service: str, scopes: Collection[str], life: timedelta, actor: Actor
    ) -> Session | None:
        """A session that a user gives to a service; None: the user is no more, or is disabled."""
        with self._database.transaction() as connection:
            user = connection.execute(
                select(users).where(users.c.id == user_id, ~users.c.disabled).with_for_update(read=True)
            ).first()
            if user is None:
                return None
            _sweep(connection)
            session = _begin(connection, user, service, frozenset(scopes), life)
            record(connection, actor, f"service token ({' '.join(sorted(scopes))})", session.name)
            return session

    def find(self, session_id: UUID) -> Session | None:
        """None: it has ended, or its user is disabled."""
        with self._database.transaction() as connection:
            return _session(connection.execute(_alive(session_id)).first())

    def end(self, session_id: UUID, actor: Actor) -> None:
        """From now on, in all processes, no token of it is good."""
        with self._database.transaction() as connection:
            connection.execute(delete(sessions).where(sessions.c.id == session_id))
            record(connection, actor, "logout", actor.name)


def _unchanged(connection: Connection, user: Row[Any]) -> Row[Any] | None:
    """The user, if nobody has changed or disabled them meanwhile; nor does until the transaction ends."""
    same = (users.c.id == user.id) & (users.c.password_hash == user.password_hash) & ~users.c.disabled
    return connection.execute(select(users).where(same).with_for_update(key_share=True)).first()


def _begin(
    connection: Connection, user: Row[Any], service: str | None, scopes: frozenset[str], life: timedelta
) -> Session:
    values = {"id": uuid4(), "user_id": user.id, "service": service, "scopes": sorted(scopes)}
    query = insert(sessions).values(**values, expires_at=func.now() + life)
    expires_at = connection.scalar(query.returning(sessions.c.expires_at))
    assert expires_at is not None  # noqa: S101 - of the row that was inserted
    return Session(values["id"], user.id, user.name, service, scopes, expires_at)


def _alive(session_id: UUID | None) -> Select[Any]:
    return (
        select(sessions, users.c.name.label("user"), users.c.scopes.label("allowed"))
        .join_from(sessions, users)
        .where(sessions.c.id == session_id, sessions.c.expires_at > func.now(), ~users.c.disabled)
    )


def _session(row: Row[Any] | None) -> Session | None:
    if row is None:
        return None
    scopes = frozenset(row.scopes) & frozenset(row.allowed)
    return Session(row.id, row.user_id, row.user, row.service, scopes, row.expires_at)


def _refresh_token(connection: Connection, session: Session) -> str:
    token = secrets.token_urlsafe(32)
    connection.execute(insert(refresh_tokens).values(digest=_digest(token), session_id=session.id))
    return token


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()


def _sweep(connection: Connection) -> None:
    """Removes sessions that have ended, which nobody else is about to remove."""
    ended = (
        select(sessions.c.id)
        .where(sessions.c.expires_at < func.now())
        .limit(SWEPT_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    connection.execute(delete(sessions).where(sessions.c.id.in_(ended)))
