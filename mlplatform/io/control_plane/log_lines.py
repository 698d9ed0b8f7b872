"""What the command of an execution writes, line by line."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from sqlalchemy import Connection, RowMapping, select
from sqlalchemy.dialects.postgresql import insert

from mlplatform.io.control_plane import executions, tables
from mlplatform.io.control_plane.database import notify
from mlplatform.io.control_plane.job_rows import LOGS

# Woken are those who follow a log, with the id of its execution.
CHANNEL = LOGS

_lines = tables.log_lines


Stream = Literal["stdout", "stderr", "platform"]


@dataclass(frozen=True)
class Line:
    """One line of a command, without its end; `number` is dense, from 0, over both streams."""

    number: int
    at: datetime
    stream: Stream
    text: str


def append(connection: Connection, execution_id: uuid.UUID, lease: uuid.UUID, lines: Sequence[Line]) -> None:
    """Keeps lines; those that were kept already stay, since it cannot always be told whether they were.

    Raises:
        LeaseLost: another has the execution now, or it has ended.
    """
    # PostgreSQL's texts cannot have NUL.
    rows = [
        {
            "execution_id": execution_id,
            "number": line.number,
            "at": line.at,
            "stream": line.stream,
            "text": line.text.replace("\x00", "\N{REPLACEMENT CHARACTER}"),
        }
        for line in lines
    ]
    executions.hold(connection, execution_id, lease)
    connection.execute(insert(_lines).on_conflict_do_nothing(), rows)
    notify(connection, CHANNEL, str(execution_id))


def after(
    connection: Connection, execution_id: uuid.UUID, number: int = -1, limit: int = 1000
) -> Sequence[RowMapping]:
    """The lines behind `number` (-1: from the first), oldest first."""
    query = select(_lines).where(_lines.c.execution_id == execution_id, _lines.c.number > number)
    return connection.execute(query.order_by(_lines.c.number).limit(limit)).mappings().all()
