"""Brings tables to the newest revision, in the process that needs them."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    from sqlalchemy import Connection


class MigrationError(PlatformError):
    """Tables cannot be brought to the newest revision; the message says why and the remedy."""


def is_newest(connection: Connection, migrations: Path, version_table: str) -> bool:
    """Whether nothing is left to do, found out without Alembic, which is slow to load and stays for good.

    Files are named after their revisions, which are numbers.
    """
    from sqlalchemy import text

    if connection.scalar(text("SELECT to_regclass(:name)"), {"name": quoted(version_table)}) is None:
        return False
    newest = max(path.name.partition("_")[0] for path in migrations.glob("versions/[0-9]*.py"))
    return connection.scalars(text(f"SELECT version_num FROM {quoted(version_table)}")).all() == [newest]  # noqa: S608


def upgrade(connection: Connection, migrations: Path, version_table: str, schema: str) -> str:
    """Brings the tables of one schema to the newest revision, which it returns; touches nothing else.

    May be called by several processes at once: one of them does it, in its transaction.

    Args:
        migrations: Alembic's folder, with `versions` in it.
        version_table: not Alembic's own name, since Dagster and MLflow keep theirs in the same database.

    Raises:
        MigrationError: there are no migrations, no such schema, or the tables are of a newer release.
    """
    from alembic.config import Config
    from alembic.migration import MigrationContext
    from alembic.runtime.environment import EnvironmentContext
    from alembic.script import ScriptDirectory
    from alembic.util import CommandError
    from sqlalchemy import text

    scripts = ScriptDirectory(str(migrations))
    newest = scripts.get_current_head()
    if newest is None:
        raise MigrationError(f"there are no migrations in {migrations}: reinstall mlplatform")

    def steps(revision: Any, context: MigrationContext) -> Any:
        return scripts._upgrade_revs(newest, revision)

    with _quiet():
        connection.execute(
            text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
            {"name": f"{version_table} {schema}"},
        )
        connection.execute(
            text("SELECT set_config('search_path', :schema, true)"), {"schema": quoted(schema)}
        )
        if connection.scalar(text("SELECT to_regnamespace(:schema)"), {"schema": quoted(schema)}) is None:
            raise MigrationError(f"the database has no schema {schema!r}: create it, or name another")
        with EnvironmentContext(Config(), scripts, fn=steps, destination_rev=newest) as environment:
            environment.configure(
                connection=connection, version_table=version_table, version_table_schema=schema
            )
            try:
                environment.run_migrations()
            except CommandError as error:
                raise MigrationError(
                    f"the tables in schema {schema!r} are of a revision that this release does not know "
                    f"({error}); install the release that made them, or a newer one"
                ) from error
    return newest


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


def quoted(identifier: str) -> str:
    return '"' + identifier.replace('"', '""') + '"'
