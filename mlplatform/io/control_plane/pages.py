"""Long lists, a page at a time: the newest first, each page behind the last row of the one before."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Column, Connection, RowMapping, Select, tuple_

from mlplatform.errors import PlatformError


class InvalidCursor(PlatformError):
    """It is none that a page was given with."""


@dataclass(frozen=True)
class Page:
    """`cursor` is where the next one begins; None: this is the last."""

    rows: Sequence[RowMapping]
    cursor: str | None


def page(
    connection: Connection,
    query: Select[Any],
    at: Column[Any],
    id_: Column[Any],
    limit: int,
    cursor: str | None = None,
) -> Page:
    """One page of a query, by the moment `at` and, among those of one moment, by `id_`.

    What is added meanwhile shifts nothing, and a page costs as much as any other.

    Raises:
        InvalidCursor: of another list, or none.
    """
    query = query.order_by(at.desc(), id_.desc()).limit(limit + 1)
    if cursor is not None:
        query = query.where(tuple_(at, id_) < _read(cursor))
    rows = connection.execute(query).mappings().all()
    if len(rows) <= limit:
        return Page(rows, None)
    last = rows[limit - 1]
    text = f"{last[at.name].isoformat()} {last[id_.name]}"
    return Page(rows[:limit], base64.urlsafe_b64encode(text.encode()).decode().rstrip("="))


def _read(cursor: str) -> tuple[datetime, uuid.UUID]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        at, _, id_ = text.partition(" ")
        return datetime.fromisoformat(at), uuid.UUID(id_)
    except ValueError:
        raise InvalidCursor("the cursor is none that a page was given with") from None
