"""A control plane's database for a test, with what is usually in it."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

from sqlalchemy import text

from mlplatform.io.control_plane.database import Database
from mlplatform.io.migrations import quoted


@contextmanager
def fresh_database(url: str) -> Iterator[Database]:
    """With a schema of its own, which is dropped afterwards."""
    database = Database(url, schema=f"test_{uuid.uuid4().hex[:12]}")
    database.migrate()
    try:
        yield database
    finally:
        with database.transaction() as connection:
            connection.execute(text(f"DROP SCHEMA {quoted(database.schema)} CASCADE"))
        database.close()
