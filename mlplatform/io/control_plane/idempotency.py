"""Requests that were made once: whoever makes one again gets its first answer."""

from __future__ import annotations

from typing import Any

from sqlalchemy import Connection, Row, delete, func, insert, select, text, tuple_

from mlplatform.io.control_plane import tables

KEPT_HOURS = 24
# More than the one that is added, so that they become fewer.
FORGOTTEN_AT_ONCE = 10

_keys = tables.idempotency_keys


def first_answer(connection: Connection, principal: str, key: str) -> Row[Any] | None:
    """What the same principal was answered under this key; others who ask now wait for this transaction."""
    connection.execute(
        text(
            "SELECT pg_advisory_xact_lock(hashtextextended(current_schema() || :principal || ' ' || :key, 1))"
        ),
        {"principal": principal, "key": key},
    )
    return connection.execute(
        select(_keys).where(_keys.c.principal == principal, _keys.c.key == key)
    ).one_or_none()


def remember(connection: Connection, principal: str, key: str, digest: bytes, status: int, body: Any) -> None:
    """Keeps an answer with what it answers, for a day at least."""
    old = (
        select(_keys.c.principal, _keys.c.key)
        .where(_keys.c.created_at < func.clock_timestamp() - func.make_interval(0, 0, 0, 0, KEPT_HOURS))
        .limit(FORGOTTEN_AT_ONCE)
        .with_for_update(skip_locked=True)
    )
    connection.execute(delete(_keys).where(tuple_(_keys.c.principal, _keys.c.key).in_(old)))
    connection.execute(
        insert(_keys).values(principal=principal, key=key, digest=digest, status=status, body=body)
    )
