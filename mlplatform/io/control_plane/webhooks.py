"""Webhooks: to whom events are posted, which of them, and how far each has got."""

from __future__ import annotations

import random
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, RowMapping, delete, func, insert, or_, select, update

from mlplatform.io.control_plane import events, tables
from mlplatform.io.control_plane.job_rows import NotFound
from mlplatform.io.control_plane.publishing import Published

# Doubled after each failure.
FIRST_WAIT = timedelta(seconds=5)
LONGEST_WAIT = timedelta(hours=6)
# One that fails for so long is paused.
PATIENCE = timedelta(days=3)
BOTH_SECRETS = timedelta(hours=24)
# Rows that are looked through at once.
MOST_AT_ONCE = 500

_webhooks = tables.webhooks
# Not that of the module, which others may want to know the numbers of.
_random = random.SystemRandom()


def create(
    connection: Connection, url: str, types: Sequence[str], after: int | None, created_by: str
) -> RowMapping:
    """A webhook that is told of what follows `after` (None: of what follows now)."""
    id_ = uuid.uuid4()
    connection.execute(
        insert(_webhooks).values(
            id=id_,
            url=url,
            types=list(types),
            position=events.newest(connection) if after is None else after,
            created_by=created_by,
        )
    )
    return get(connection, id_)


def get(connection: Connection, webhook_id: uuid.UUID) -> RowMapping:
    """
    Raises:
        NotFound: there is no such webhook.
    """
    query = select(_webhooks).where(_webhooks.c.id == webhook_id)
    found = connection.execute(query).mappings().one_or_none()
    if found is None:
        raise _unknown(webhook_id)
    return found


def change(
    connection: Connection,
    webhook_id: uuid.UUID,
    *,
    url: str | None = None,
    types: Sequence[str] | None = None,
    paused: bool | None = None,
) -> RowMapping:
    """Changes what is not None. One that goes on is tried at once.

    Raises:
        NotFound: there is no such webhook.
    """
    given: dict[str, Any] = {"url": url, "types": types, "paused": paused}
    values = {name: value for name, value in given.items() if value is not None}
    if url is not None or paused is False:
        values |= {"failures": 0, "failing_since": None, "next_attempt_at": None, "trouble": None}
    query = select(_webhooks).where(_webhooks.c.id == webhook_id).with_for_update()
    before = connection.execute(query).one_or_none()
    if before is None:
        raise _unknown(webhook_id)
    _set(connection, webhook_id, **values)
    if paused is not None and paused != before.paused:
        _tell(connection, webhook_id, "paused" if paused else "resumed", "asked_for")
    return get(connection, webhook_id)


def rotate(connection: Connection, webhook_id: uuid.UUID) -> RowMapping:
    """Another secret; for a day, the one before signs too.

    Raises:
        NotFound: there is no such webhook.
    """
    _set(
        connection,
        webhook_id,
        secret_number=_webhooks.c.secret_number + 1,
        both_secrets_until=func.clock_timestamp() + BOTH_SECRETS,
    )
    return get(connection, webhook_id)


def remove(connection: Connection, webhook_id: uuid.UUID) -> None:
    """
    Raises:
        NotFound: there is no such webhook.
    """
    if not connection.execute(delete(_webhooks).where(_webhooks.c.id == webhook_id)).rowcount:
        raise _unknown(webhook_id)


def due(connection: Connection) -> Sequence[uuid.UUID]:
    """Those that something may be posted to now."""
    return (
        connection.execute(
            select(_webhooks.c.id)
            .where(
                _webhooks.c.paused.is_(False),
                or_(
                    _webhooks.c.next_attempt_at.is_(None),
                    _webhooks.c.next_attempt_at <= func.clock_timestamp(),
                ),
                _webhooks.c.position < events.newest(connection),
            )
            .order_by(_webhooks.c.id)
        )
        .scalars()
        .all()
    )


def next_events(
    connection: Connection, webhook_id: uuid.UUID, limit: int
) -> tuple[RowMapping, Sequence[RowMapping]] | None:
    """A webhook with the next events that it wants; those before them that it does not are passed over.

    Returns:
        None if there is nothing to do: it has seen all, is paused or removed, or waits.
    """
    if webhook_id not in due(connection):
        return None
    while True:
        webhook = get(connection, webhook_id)
        found = events.after(connection, webhook["position"], MOST_AT_ONCE)
        if not found:
            return None
        wanted = [event for event in found if wants(webhook["types"], event["type"])]
        if wanted:
            return webhook, wanted[:limit]
        if not _move(connection, webhook, found[-1]["id"]):
            # Somebody has changed it meanwhile.
            return None


def wants(types: Sequence[str], kind: str) -> bool:
    return not types or any(
        kind == wanted or (wanted.endswith(".*") and kind.startswith(wanted[:-1])) for wanted in types
    )


def keep(connection: Connection, webhook: RowMapping, published: Published) -> None:
    """What became of an attempt. Nothing, if another process has got further, or the webhook was changed."""
    position = published.position or webhook["position"]
    if published.trouble is None:
        _move(
            connection,
            webhook,
            position,
            failures=0,
            failing_since=None,
            trouble=None,
            next_attempt_at=None,
            delivered_at=func.clock_timestamp(),
        )
        return
    # One that took something began to fail just now.
    failures = 1 if published.position else webhook["failures"] + 1
    now = datetime.now(UTC)
    since = now if published.position or webhook["failing_since"] is None else webhook["failing_since"]
    over = published.unwanted or now - since > PATIENCE
    values: dict[str, Any] = {
        "failures": failures,
        "failing_since": since,
        "trouble": published.trouble,
        "next_attempt_at": now + wait(failures, published.seconds_to_wait),
        "paused": over,
    }
    if published.position:
        values["delivered_at"] = func.clock_timestamp()
    if _move(connection, webhook, position, **values) and over:
        _tell(connection, webhook["id"], "paused", "unwanted" if published.unwanted else "failing")


def wait(failures: int, asked: float | None) -> timedelta:
    """Before the next attempt; not the same for all, so that they do not come back together."""
    most = min(LONGEST_WAIT, FIRST_WAIT * 2 ** min(failures - 1, 30))
    jittered = most * _random.uniform(0.5, 1)
    return max(jittered, min(LONGEST_WAIT, timedelta(seconds=asked or 0)))


def _move(connection: Connection, webhook: RowMapping, position: int, **values: Any) -> bool:
    same = (
        _webhooks.c.id == webhook["id"],
        _webhooks.c.position == webhook["position"],
        _webhooks.c.url == webhook["url"],
        _webhooks.c.paused.is_(False),
    )
    query = update(_webhooks).where(*same).values(position=position, **values)
    return bool(connection.execute(query).rowcount)


def _set(connection: Connection, webhook_id: uuid.UUID, **values: Any) -> None:
    query = update(_webhooks).where(_webhooks.c.id == webhook_id)
    if not connection.execute(query.values(updated_at=func.clock_timestamp(), **values)).rowcount:
        raise _unknown(webhook_id)


def _tell(connection: Connection, webhook_id: uuid.UUID, what: str, reason: str) -> None:
    events.write(connection, f"webhook.{what}", {"webhook_id": str(webhook_id), "reason": reason})


def _unknown(webhook_id: uuid.UUID) -> NotFound:
    return NotFound(f"there is no webhook {webhook_id}")
