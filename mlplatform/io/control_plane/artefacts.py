"""Files that the command of an execution has left, which are in the object store."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from sqlalchemy import Connection
from sqlalchemy.dialects.postgresql import insert

from mlplatform.io.control_plane import executions, tables


@dataclass(frozen=True)
class Artefact:
    """One file: its path below the folder that the command was given, its size, and where it is now."""

    path: str
    bytes: int
    sha256: str
    key: str


def keep(
    connection: Connection, execution_id: uuid.UUID, lease: uuid.UUID, artefacts: Sequence[Artefact]
) -> None:
    """Keeps which files there are; those that were kept already stay.

    Raises:
        LeaseLost: another has the execution now, or it has ended.
    """
    executions.hold(connection, execution_id, lease)
    rows = [{"execution_id": execution_id, **asdict(artefact)} for artefact in artefacts]
    connection.execute(insert(tables.artefacts).on_conflict_do_nothing(), rows)
