"""Migrations of the warehouse, run in the process that needs its tables."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    from sqlalchemy import Connection

MIGRATIONS = Path(__file__).with_name("migrations")
# Not alembic's own name: Dagster and MLflow keep theirs in the same database.
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
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from sqlalchemy import text

    scripts = ScriptDirectory(str(MIGRATIONS))
    newest = scripts.get_current_head()
    if newest is None:
        raise WarehouseError(f"there are no migrations in {MIGRATIONS}: reinstall mlplatform")

    def steps(revision: Any, context: MigrationContext) -> Any:
        return scripts._upgrade_revs(newest, revision)

    with _transaction(database_url) as connection, _quiet():
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"{VERSION_TABLE} {schema}"},
        )
        connection.execute(
            text("SELECT set_config('search_path', :schema, true)"), {"schema": _quoted(schema)}
        )
        if connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": _quoted(schema)}) is None:
            raise WarehouseError(f"the database has no schema {schema!r}: create it, or name another")
        with EnvironmentContext(Config(), scripts, fn=steps, destination_rev=newest) as environment:
            environment.configure(
                connection=connection, version_table=VERSION_TABLE, version_table_schema=schema
            )
            try:
                environment.run_migrations()
            except CommandError as error:
                raise WarehouseError(
                    f"the warehouse's tables in schema {schema!r} are of a revision that this release does "
                    f"not know ({error}); install the release that made them, or a newer one"
                ) from error
    return newest


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


@contextmanager
def _quiet() -> Iterator[None]:
    """Alembic tells every step at level INFO.

    A filter and no level: several threads may be here, and each takes away only its own.
    """

    def warnings_only(record: logging.LogRecord) -> bool:
        return record.levelno >= logging.WARNING

    logger = logging.getLogger("alembic.runtime.migration")
    logger.addFilter(warnings_only)
    try:
        yield
    finally:
        logger.removeFilter(warnings_only)


def _quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
