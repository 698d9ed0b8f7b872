"""The control plane's database: transactions, migrations, notifications, and who leads."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from sqlalchemy import URL, Connection, create_engine, make_url, text
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError, TimeoutError

from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.migrations import is_newest, quoted, upgrade

MIGRATIONS = Path(__file__).with_name("migrations")
VERSION_TABLE = "control_plane_version"
SCHEMA = "control_plane"
CONNECT_SECONDS = 5
# Nothing that the control plane asks for takes longer, unless the server is stuck.
STATEMENT_SECONDS = 30
# A process that is stopped, or cut off, in the middle of a transaction keeps its locks no longer: the events
# of all jobs wait for one of them.
IDLE_SECONDS = 5
# A server that is gone without a word is found out within 30 s.
ALIVE = {"keepalives_idle": 10, "keepalives_interval": 5, "keepalives_count": 4, "tcp_user_timeout": 30_000}

# The same of a client, whose machine is gone: the server would keep its locks, and its lead, for hours.
SERVERS_ALIVE = (
    "-c tcp_keepalives_idle=10 -c tcp_keepalives_interval=5 -c tcp_keepalives_count=4"
    " -c tcp_user_timeout=30000"
)


class DatabaseUnreachable(TransientError):
    """PostgreSQL does not answer, or has lost the connection: the transaction had no effect."""


class DatabaseRefused(PlatformError):
    """PostgreSQL refuses what it was asked; the message is its own."""


class Database:
    """One schema of a PostgreSQL database, with a pool of connections.

    Args:
        url: `postgresql://user:password@host:port/database`, with any driver.
        schema: all tables are in it; tests have one each.
        pool_size: connections that are kept.

    Raises:
        DatabaseRefused: the URL is none.
    """

    def __init__(self, url: str, schema: str = SCHEMA, pool_size: int = 10) -> None:
        try:
            self._url: URL = make_url(url).set(drivername="postgresql+psycopg")
        except ArgumentError:
            # Not repeated: there is a password in it.
            raise DatabaseRefused(
                "the database's address is not postgresql://user:password@host:port/database"
            ) from None
        self.schema = schema
        options = (
            f"-c search_path={quoted(schema)} -c timezone=UTC -c statement_timeout={STATEMENT_SECONDS * 1000}"
            f" -c idle_in_transaction_session_timeout={IDLE_SECONDS * 1000} {SERVERS_ALIVE}"
        )
        self.arguments = {"connect_timeout": CONNECT_SECONDS, "options": options, **ALIVE}
        self._engine = create_engine(
            self._url,
            connect_args=self.arguments,
            pool_size=pool_size,
            max_overflow=pool_size,
            # The server may have restarted meanwhile.
            pool_pre_ping=True,
            # An error that nobody foresaw goes into the log with its trace.
            hide_parameters=True,
            pool_timeout=STATEMENT_SECONDS,
        )

    @property
    def where(self) -> str:
        """The address without the password."""
        return self._url.render_as_string(hide_password=True)

    @property
    def conninfo(self) -> str:
        """The address with the password, as libpq takes it, which knows no drivers."""
        return self._url.set(drivername="postgresql").render_as_string(hide_password=False)

    @contextmanager
    def transaction(self) -> Iterator[Connection]:
        """A connection, whose changes are all kept, or none of them if an exception leaves it.

        Raises:
            DatabaseUnreachable: it cannot be told whether the changes were kept, if it comes at the end.
            DatabaseRefused: of anything else that PostgreSQL has against it.
        """
        with self._translated(), self._engine.begin() as connection:
            yield connection

    def migrate(self) -> None:
        """Brings the tables to the newest revision; several processes may at once.

        Raises:
            MigrationError: the tables are of a newer release.
        """
        with self.transaction() as connection:
            # Two that create one schema at once are told that it exists.
            connection.execute(
                text("SELECT pg_advisory_xact_lock(hashtextextended(:name, 0))"),
                {"name": f"schema {self.schema}"},
            )
            connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {quoted(self.schema)}"))
            if is_newest(connection, MIGRATIONS, VERSION_TABLE):
                return
            upgrade(connection, MIGRATIONS, VERSION_TABLE, self.schema)

    def channel(self, name: str) -> str:
        """Notifications are heard in all schemas of a database: this one's."""
        return f"{self.schema}_{name}"

    @contextmanager
    def listening(self, *names: str) -> Iterator[psycopg.Connection]:
        """A connection of its own that hears the channels; `notifies(timeout=…)` of it waits for them.

        Raises:
            DatabaseUnreachable: also later, when the connection is lost.
        """
        with self._translated(), self._session() as connection:
            self._listen(connection, names)
            yield connection

    @contextmanager
    def leading(
        self, duty: str, *names: str, silent_seconds: float = 30
    ) -> Iterator[psycopg.Connection | None]:
        """Whether this process has the duty alone: a connection that holds the lock, None if another has it.

        The connection also hears the channels.

        The duty is another's as soon as this connection is lost: ask it now and then (`SELECT 1`). It is
        also lost when nothing was asked for `silent_seconds`: whoever leads may have been stopped.
        """
        with self._translated(), self._session() as connection:
            row = connection.execute(
                "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", (f"{self.schema} {duty}",)
            ).fetchone()
            if not (row and row[0]):
                yield None
                return
            self._listen(connection, names)
            connection.execute(f"SET idle_session_timeout = '{silent_seconds:g}s'".encode())
            yield connection

    def _listen(self, connection: psycopg.Connection, names: tuple[str, ...]) -> None:
        for name in names:
            connection.execute(f"LISTEN {quoted(self.channel(name))}".encode())

    @contextmanager
    def _session(self) -> Iterator[psycopg.Connection]:
        connection = psycopg.connect(self.conninfo, autocommit=True, **self.arguments)
        try:
            yield connection
        finally:
            connection.close()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (OperationalError, psycopg.OperationalError, TimeoutError) as error:
            raise DatabaseUnreachable(f"{self.where}: {_said(error)}") from error
        except (DBAPIError, psycopg.Error) as error:
            if isinstance(error, DBAPIError) and error.connection_invalidated:
                raise DatabaseUnreachable(f"{self.where}: {_said(error)}") from error
            raise DatabaseRefused(f"{self.where}: {_said(error)}") from error

    def close(self) -> None:
        self._engine.dispose()


def notify(connection: Connection, channel: str, payload: str = "") -> None:
    """Wakes those who listen, when the transaction is kept."""
    connection.execute(
        text("SELECT pg_notify(current_schema() || '_' || :channel, :payload)"),
        {"channel": channel, "payload": payload},
    )


def _said(error: Exception) -> str:
    # The rest has the statement and its values.
    lines = str(getattr(error, "orig", error)).strip().splitlines()
    return lines[0] if lines else type(error).__name__
