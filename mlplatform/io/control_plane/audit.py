"""Who did what, when, from where, and with what outcome."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, insert, select

from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.tables import audit_log

Outcome = Literal["success", "refused"]


@dataclass(frozen=True)
class Actor:
    """Who does something, and where the request came from.

    Attributes:
        id: tells them from all others; empty: nobody knows.
        name: for people.
        request_id: is in the log of the service too.
        address: of the client.
    """

    id: str
    name: str
    request_id: str = ""
    address: str = ""


@dataclass(frozen=True)
class AuditRow:
    id: int
    at: datetime
    principal_id: str
    principal: str
    action: str
    target: str
    outcome: str
    request_id: str
    address: str


def record(
    connection: Connection, actor: Actor, action: str, target: str, outcome: Outcome = "success"
) -> None:
    """Adds a row, in the transaction of what it tells. No part of it may be a secret."""
    connection.execute(
        insert(audit_log).values(
            principal_id=actor.id,
            principal=actor.name,
            action=action,
            target=target,
            outcome=outcome,
            request_id=actor.request_id,
            address=actor.address,
        )
    )


class AuditLog:
    """The rows of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, actor: Actor, action: str, target: str, outcome: Outcome = "success") -> None:
        """Adds a row in a transaction of its own."""
        with self._database.transaction() as connection:
            record(connection, actor, action, target, outcome)

    def page(self, limit: int, before: int | None = None) -> Sequence[AuditRow]:
        """The newest rows first, those before the row `before`."""
        query = select(audit_log).order_by(audit_log.c.id.desc()).limit(limit)
        if before is not None:
            query = query.where(audit_log.c.id < before)
        with self._database.transaction() as connection:
            return [AuditRow(**row) for row in connection.execute(query).mappings()]
