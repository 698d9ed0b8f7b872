"""The people who may use the control plane, and what they may do."""

from __future__ import annotations

import re
import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID, uuid4

from sqlalchemy import Connection, delete, exists, select, text, update
from sqlalchemy.dialects.postgresql import insert

from mlplatform.errors import PlatformError
from mlplatform.io.control_plane.audit import Actor, record
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.passwords import hashed
from mlplatform.io.control_plane.tables import sessions, users

ADMINISTRATION = "users:admin"
SCOPES = {
    "pipelines:read": "See pipelines",
    "pipelines:write": "Make, change, remove and run pipelines",
    "jobs:read": "See jobs, their executions, logs and artefacts",
    "jobs:write": "Make, cancel and retry jobs",
    "schedules:read": "See schedules",
    "schedules:write": "Make, pause and remove schedules",
    "workers:read": "See workers",
    "workers:write": "Be a worker, and make, drain and stop them",
    "events:read": "Listen to events",
    "webhooks:write": "Have events sent elsewhere",
    ADMINISTRATION: "Make, change and remove users; who has it can give themselves every other",
    "audit:read": "See who did what",
    "metrics:read": "Read metrics",
}
NAME = r"^[a-z0-9][a-z0-9._@-]{0,99}$"
LEAST_PASSWORD = 12
# A longer one only costs time.
LONGEST_PASSWORD = 1024
FIRST = "admin"
PLATFORM = Actor("", "platform")


class InvalidUser(PlatformError):
    """A name, a password or a scope cannot be."""


class UserExists(PlatformError):
    """The name is taken."""


class UnknownUser(PlatformError):
    """There is nobody of that name."""


class LastAdministrator(PlatformError):
    """Nobody who may change users would be left."""


@dataclass(frozen=True)
class User:
    id: UUID
    name: str
    scopes: Sequence[str]
    disabled: bool
    created_at: datetime


COLUMNS = (users.c.id, users.c.name, users.c.scopes, users.c.disabled, users.c.created_at)


class Users:
    """The users of a database. Each change is in the audit log, in the same transaction."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, name: str, password: str, scopes: Collection[str], actor: Actor) -> User:
        """
        Raises:
            InvalidUser: the name, the password or a scope cannot be.
            UserExists: the name is taken.
        """
        if not re.fullmatch(NAME, name):
            raise InvalidUser(
                "a name is of small letters, digits and . _ @ -, begins with a letter or digit, and is not"
                " longer than 100"
            )
        kept = hashed(_long_enough(password))
        with self._database.transaction() as connection:
            return _add(connection, name, kept, _known(scopes), actor)

    def create_first(self) -> str | None:
        """Makes `admin`, who may do everything, if there is no user yet; of several processes, one does.

        Returns:
            The password, which nobody can find out later; None: there are users.
        """
        if self.any():
            return None
        password = secrets.token_urlsafe(18)
        try:
            self.create(FIRST, password, list(SCOPES), PLATFORM)
        except UserExists:
            # Another process was first.
            return None
        return password

    def any(self) -> bool:
        with self._database.transaction() as connection:
            return bool(connection.scalar(select(exists(select(users.c.id)))))

    def page(self, limit: int, after: str = "") -> Sequence[User]:
        """In the order of their names, those after the name `after`."""
        query = select(*COLUMNS).where(users.c.name > after).order_by(users.c.name).limit(limit)
        with self._database.transaction() as connection:
            return [User(**row) for row in connection.execute(query).mappings()]

    def change(
        self,
        name: str,
        actor: Actor,
        *,
        password: str | None = None,
        scopes: Collection[str] | None = None,
        disabled: bool | None = None,
    ) -> User:
        """Changes what is not None. Another password, or being disabled, ends all sessions of the user.

        Raises:
            InvalidUser: the password or a scope cannot be.
            UnknownUser: there is nobody of that name.
            LastAdministrator: nobody who may change users would be left.
        """
        values: dict[str, object] = {}
        if password is not None:
            values["password_hash"] = hashed(_long_enough(password))
        if scopes is not None:
            values["scopes"] = _known(scopes)
        if disabled is not None:
            values["disabled"] = disabled
        with self._database.transaction() as connection:
            _wait_for_others(connection)
            # Something is set, even if nothing is to be changed.
            query = update(users).where(users.c.name == name).values(name=name, **values).returning(*COLUMNS)
            row = connection.execute(query).mappings().first()
            if row is None:
                raise _unknown(name)
            _check_administrators(connection)
            if password is not None or disabled:
                connection.execute(delete(sessions).where(sessions.c.user_id == row["id"]))
            changed = ", ".join(each.removesuffix("_hash") for each in values)
            record(connection, actor, f"change user ({changed or 'nothing'})", name)
            return User(**row)

    def delete(self, name: str, actor: Actor) -> None:
        """Removes the user and their sessions.

        Raises:
            UnknownUser: there is nobody of that name.
            LastAdministrator: nobody who may change users would be left.
        """
        with self._database.transaction() as connection:
            _wait_for_others(connection)
            if not connection.execute(delete(users).where(users.c.name == name)).rowcount:
                raise _unknown(name)
            _check_administrators(connection)
            record(connection, actor, "delete user", name)


def _add(connection: Connection, name: str, password_hash: str, scopes: Sequence[str], actor: Actor) -> User:
    row = (
        connection.execute(
            # ON CONFLICT, since an error of the database would end the transaction without saying which.
            insert(users)
            .values(id=uuid4(), name=name, password_hash=password_hash, scopes=scopes)
            .on_conflict_do_nothing(index_elements=[users.c.name])
            .returning(*COLUMNS)
        )
        .mappings()
        .first()
    )
    if row is None:
        raise UserExists(f"there is a user {name} already: change that one, or name another")
    record(connection, actor, "create user", name)
    return User(**row)


def _wait_for_others(connection: Connection) -> None:
    """Until the end of the transaction, nobody else changes users; they are still read."""
    connection.execute(text(f"LOCK TABLE {users.name} IN SHARE ROW EXCLUSIVE MODE"))


def _check_administrators(connection: Connection) -> None:
    able = exists(select(users.c.id).where(~users.c.disabled, users.c.scopes.contains([ADMINISTRATION])))
    if not connection.scalar(select(able)):
        raise LastAdministrator(
            f"nobody with the scope {ADMINISTRATION} would be left: give it to somebody else first"
        )


def _long_enough(password: str) -> str:
    if not LEAST_PASSWORD <= len(password) <= LONGEST_PASSWORD:
        raise InvalidUser(f"a password has {LEAST_PASSWORD} to {LONGEST_PASSWORD} characters")
    return password


def _known(scopes: Collection[str]) -> list[str]:
    if unknown := sorted(set(scopes) - set(SCOPES)):
        raise InvalidUser(f"there is no scope {', '.join(unknown)}; there are {', '.join(SCOPES)}")
    return sorted(set(scopes))


def _unknown(name: str) -> UnknownUser:
    return UnknownUser(f"there is no user {name}")
