"""Migrations of the warehouse, run in the process that needs its tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.errors import PlatformError
from mlplatform.io.migrations import MigrationError, upgrade

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "mlplatform_warehouse_version"
CONNECT_SECONDS = 10


class WarehouseError(PlatformError):
    """The warehouse's tables cannot be made or filled; the message says why and the remedy."""


def migrate(database_url: str, schema: str = "public") -> str:
    """Brings the tables of one schema to the newest revision, which it returns; touches nothing else.

    May be called at any time, also by several processes at once: one of them does it, in one transaction.

    Raises:
        WarehouseError: the server cannot be reached or refuses, or the tables are of a newer release.
    """
    with _transaction(database_url) as connection:
        try:
            return upgrade(connection, MIGRATIONS, VERSION_TABLE, schema)
        except MigrationError as error:
            raise WarehouseError(f"warehouse: {error}") from error


@contextmanager
def _transaction(database_url: str) -> Iterator[Connection]:
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError, DBAPIError
    from sqlalchemy.pool import NullPool

    try:
        url = make_url(database_url).set(drivername="postgresql+psycopg2")
    except ArgumentError:
        # Not repeated: there is a password in it.
        raise WarehouseError(
            "the database's address is not postgresql://user:password@host:port/database"
        ) from None
    engine = create_engine(url, poolclass=NullPool, connect_args={"connect_timeout": CONNECT_SECONDS})
    where = f"warehouse {url.render_as_string(hide_password=True)}"
    try:
        with engine.begin() as connection:
            yield connection
    except DBAPIError as error:
        said = str(error.orig).strip().splitlines()[0]
        raise WarehouseError(f"{where}: {said}; nothing was changed") from error
