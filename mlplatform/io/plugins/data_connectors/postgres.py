"""Tables of PostgreSQL, in and out by COPY."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast
from urllib.parse import parse_qsl, unquote, urlsplit

from mlplatform.io.plugins.configuration import refuse_unknown_keys
from mlplatform.io.plugins.data_connectors import CHUNK_ROWS, DataError, DataUnavailable
from mlplatform.io.plugins.data_connectors.csv_text import csv_lines, decoded
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import pyarrow as pa
    from psycopg2.extensions import connection as Connection
    from psycopg2.extensions import cursor as Cursor
    from psycopg2.sql import Composable

OPTIONS = (
    "host",
    "port",
    "database",
    "schema",
    "user",
    "password",
    "sslmode",
    "connect_timeout_seconds",
    "lock_timeout_seconds",
    "statement_timeout_seconds",
)
ADDRESS = ("host", "database", "user")
CONNECT_SECONDS = 10
# What no waiting mends.
REFUSALS = ("authentication failed", "does not exist", "pg_hba.conf", "translate host name")
# Connection exceptions and operator interventions (a server that shuts down).
CONNECTION_STATES = ("08", "57P")
# A table that somebody alters, or another attempt of the same run.
LOCK_SECONDS = 300
STATEMENT_SECONDS = 3_600
PIPE_BYTES = 1 << 20
BLOCK_BYTES = 4 << 20
NEAR_TABLES = 10


class PostgresConnector:
    """Tables of one schema (`public` unless set; `schema.table` names another's).

    Without `host` the platform's own database is meant. The keys `…_timeout_seconds` bound how long a
    connection, a lock and a statement are waited for.
    """

    config_keys = OPTIONS

    def __init__(self, config: Mapping[str, Any], settings: Settings, root: Path) -> None:
        refuse_unknown_keys("data connector postgres", config, self.config_keys, DataError)
        self._schema = str(config.get("schema") or "public")
        self._seconds = {
            "lock_timeout": float(config.get("lock_timeout_seconds", LOCK_SECONDS)),
            "statement_timeout": float(config.get("statement_timeout_seconds", STATEMENT_SECONDS)),
        }
        self._connect_seconds = max(int(config.get("connect_timeout_seconds", CONNECT_SECONDS)), 1)
        named = [key for key in (*ADDRESS, "port", "password") if config.get(key)]
        if not named:
            self._address = address_of(settings.database_url)
            return
        missing = [key for key in ADDRESS if not config.get(key)]
        if missing:
            raise DataError(
                f"data connector postgres: config names {', '.join(named)} and no {', '.join(missing)}; add "
                "it, "
                "or leave all of them out for the platform's own database"
            )
        self._address: dict[str, Any] = {
            "host": str(config["host"]),
            "port": str(config.get("port") or 5432),
            "dbname": str(config["database"]),
            "user": str(config["user"]),
            "password": str(config.get("password") or ""),
        }
        if config.get("sslmode"):
            self._address["sslmode"] = str(config["sslmode"])

    def schema(self, table: str) -> pa.Schema:
        import pyarrow as pa

        with self._transaction(read_only=True) as cursor:
            return pa.schema(list(self._columns(cursor, table).items()))

    def read(self, table: str) -> Iterator[pa.RecordBatch]:
        from psycopg2.sql import SQL, Identifier

        with self._transaction(read_only=True) as cursor:
            columns = self._columns(cursor, table)
            query = SQL("COPY (SELECT {} FROM {}) TO STDOUT (FORMAT csv)").format(
                SQL(", ").join(map(Identifier, columns)), self._identifier(table)
            )
            with self._told(table):
                for batch in _streamed(cursor, query, columns):
                    for start in range(0, batch.num_rows, CHUNK_ROWS):
                        yield batch.slice(start, CHUNK_ROWS)

    def publish(
        self, table: str, batches: Iterator[pa.RecordBatch], key: Sequence[str], run_column: str, run_id: str
    ) -> int:
        """In one transaction. Attempts of one run wait for each other; different runs do not.

        A table that is missing is made first, with a unique index on the run and the key.
        """
        import psycopg2
        from psycopg2.sql import SQL, Identifier, Literal

        first = next(batches, None)
        if first is not None:
            self._create_if_missing(table, first.schema, key, run_column)
        with self._transaction() as cursor, self._told(table):
            # Released with the transaction, also when this process dies.
            cursor.execute(
                "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"{self._full(table)} {run_id}"]
            )
            columns = self._columns(cursor, table)
            where = SQL("{} WHERE {} = {}").format(
                self._identifier(table), Identifier(run_column), Literal(run_id)
            )
            cursor.execute(SQL("DELETE FROM {}").format(where))
            if first is None:
                return 0
            names = first.schema.names
            unknown = [name for name in names if name not in columns]
            if unknown:
                raise DataError(
                    f"table {self._full(table)} has no column {', '.join(unknown)}: it has "
                    f"{', '.join(columns)}; add the column, or leave it out of `serving.output.columns`"
                )
            lines = _Lines(self._full(table), first, batches, columns)
            copy = SQL("COPY {} ({}) FROM STDIN (FORMAT csv)").format(
                self._identifier(table), SQL(", ").join(map(Identifier, names))
            )
            try:
                cursor.copy_expert(copy, cast(BinaryIO, lines), PIPE_BYTES)
            except psycopg2.Error:
                # What the rows' own generator raised comes back as the server's "canceled".
                if lines.error is not None:
                    raise lines.error from None
                raise
            self._refuse_repeated_keys(cursor, table, key, run_column, where)
            return lines.rows

    def check(self) -> None:
        with self._transaction(read_only=True) as cursor:
            cursor.execute(
                "SELECT has_schema_privilege(oid, 'USAGE') FROM pg_namespace WHERE nspname = %s",
                [self._schema],
            )
            found = cursor.fetchone()
        if found is None:
            raise DataError(f"{self._place} has no schema {self._schema!r}: create it, or correct `schema`")
        if not found[0]:
            raise DataError(
                f"{self._place}: {self._address['user']} may not use the schema {self._schema!r}; "
                f"GRANT USAGE ON SCHEMA {self._schema} TO {self._address['user']}"
            )

    @property
    def _place(self) -> str:
        address = self._address
        return f"PostgreSQL at {address['host']}:{address['port']}, database {address['dbname']!r}"

    def _full(self, table: str) -> str:
        return table if "." in table else f"{self._schema}.{table}"

    def _identifier(self, table: str) -> Composable:
        from psycopg2.sql import Identifier

        schema, _, name = self._full(table).partition(".")
        return Identifier(schema, name)

    @contextmanager
    def _transaction(self, read_only: bool = False) -> Iterator[Cursor]:
        """Committed when the block ends, rolled back when it raises.

        Raises:
            DataError: the server cannot be reached, or does not let us in.
        """
        connection = self._connect()
        try:
            level = "REPEATABLE READ" if read_only else "READ COMMITTED"
            connection.set_session(isolation_level=level, readonly=read_only)
            with connection.cursor() as cursor:
                for name, seconds in self._seconds.items():
                    cursor.execute("SELECT set_config(%s, %s, false)", [name, str(round(seconds * 1_000))])
                cursor.execute("SET TimeZone = 'UTC'; SET DateStyle = 'ISO'; SET IntervalStyle = 'postgres'")
                yield cursor
            with self._told(None):
                connection.commit()
        finally:
            connection.close()

    def _connect(self) -> Connection:
        import psycopg2

        try:
            return psycopg2.connect(
                **self._address,
                connect_timeout=self._connect_seconds,
                client_encoding="utf8",
                application_name="mlplatform",
                # A server that is gone without a word is found out in about a minute.
                keepalives_idle=30,
                keepalives_interval=10,
                keepalives_count=3,
            )
        except psycopg2.OperationalError as error:
            said = self._redact(str(error).strip().splitlines()[0])
            refused = any(reason in said for reason in REFUSALS)
            raise (DataError if refused else DataUnavailable)(
                f"{self._place} does not let {self._address['user']} in: {said}; check that it runs, and "
                "host, "
                "port, database, user and password of `data_connector.config`"
            ) from None

    def _redact(self, text: str) -> str:
        password = self._address["password"]
        return text.replace(password, "***") if password else text

    @contextmanager
    def _told(self, table: str | None) -> Iterator[None]:
        """What the server says of a table, with what it names."""
        import psycopg2

        try:
            yield
        except psycopg2.Error as error:
            state = error.diag.sqlstate
            lost = state is None or state.startswith(CONNECTION_STATES)
            raise (DataUnavailable if lost else DataError)(
                self._redact(self._explanation(table, error))
            ) from error

    def _explanation(self, table: str | None, error: Any) -> str:
        from psycopg2 import errors

        diag = error.diag
        where = f"table {self._full(table)}" if table else self._place
        if diag.column_name:
            where += f", column {diag.column_name}"
        if diag.constraint_name:
            where += f", constraint {diag.constraint_name}"
        said = diag.message_primary or (str(error).strip().splitlines() or [type(error).__name__])[0]
        details = [text.rstrip(".") for text in (diag.message_detail, diag.context) if text]
        remedies: dict[type[Exception], str] = {
            errors.InsufficientPrivilege: f"grant it to {self._address['user']}",
            errors.QueryCanceled: "raise `data_connector.config.statement_timeout_seconds`",
            errors.LockNotAvailable: "see who holds the table in pg_locks, then run the step again",
            errors.UniqueViolation: "a key may occur once in a run: make the scored rows unique",
            errors.OperationalError: "run the step again when the server is up",
        }
        remedy = next((text for kind, text in remedies.items() if isinstance(error, kind)), None)
        if diag.sqlstate is None:
            # Not the server speaks, but the client, who has lost it.
            said, remedy = f"the connection was lost ({said})", remedies[errors.OperationalError]
        return "; ".join([f"{where}: {said}", *details, remedy or "correct the rows, or the table"])

    def _columns(self, cursor: Cursor, table: str) -> dict[str, pa.DataType]:
        """The table's columns with their types here, from the server's own description of a row."""
        from psycopg2 import errors
        from psycopg2.sql import SQL

        try:
            with self._told(table):
                cursor.execute(SQL("SELECT * FROM {} LIMIT 0").format(self._identifier(table)))
        except DataError as error:
            if not isinstance(error.__cause__, (errors.UndefinedTable, errors.InvalidSchemaName)):
                raise
            cursor.connection.rollback()
            raise DataError(self._no_such_table(cursor, table)) from None
        return {column.name: _arrow_type(column) for column in cursor.description or ()}

    def _no_such_table(self, cursor: Cursor, table: str) -> str:
        schema, _, name = self._full(table).partition(".")
        cursor.execute(
            "SELECT relname FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace "
            "WHERE nspname = %s AND relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY relname",
            [schema],
        )
        tables = [row[0] for row in cursor.fetchall()]
        near = get_close_matches(name, tables, 1)
        listed = ", ".join(get_close_matches(name, tables, NEAR_TABLES, 0.3) or tables[:NEAR_TABLES])
        hint = f"; did you mean {near[0]}?" if near else ""
        return f"no table {schema}.{name} in {self._place}; tables there: {listed or 'none'}{hint}"

    def _create_if_missing(self, table: str, rows: pa.Schema, key: Sequence[str], run_column: str) -> None:
        """In a transaction of its own, so that another run's publish does not wait for the rows of this."""
        from psycopg2.sql import SQL, Identifier

        with self._transaction() as cursor, self._told(table):
            quoted = self._identifier(table).as_string(cursor)
            cursor.execute("SELECT to_regclass(%s) IS NULL", [quoted])
            if cursor.fetchone() == (False,):
                return
            # IF NOT EXISTS alone fails when two make the table at the same moment.
            cursor.execute("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", [f"create {quoted}"])
            columns = SQL(", ").join(
                SQL("{} {}").format(Identifier(field.name), SQL(_sql_type(field.type))) for field in rows
            )
            cursor.execute(SQL("CREATE TABLE IF NOT EXISTS {} ({})").format(self._identifier(table), columns))
            name = f"{table.rpartition('.')[2][:40]}_run_key"
            cursor.execute(
                SQL("CREATE UNIQUE INDEX IF NOT EXISTS {} ON {} ({})").format(
                    Identifier(name),
                    self._identifier(table),
                    SQL(", ").join(map(Identifier, [run_column, *key])),
                )
            )

    def _refuse_repeated_keys(
        self, cursor: Cursor, table: str, key: Sequence[str], run_column: str, where: Composable
    ) -> None:
        """For a table that others made, without a unique index that would do it."""
        from psycopg2.sql import SQL, Identifier

        columns = sorted({*key, run_column})
        cursor.execute(
            "SELECT 1 FROM pg_index WHERE indrelid = %s::regclass AND indisunique AND indpred IS NULL AND "
            "(SELECT array_agg(attname::text ORDER BY attname) FROM pg_attribute "
            "WHERE attrelid = indrelid AND attnum = ANY(indkey)) <@ %s",
            [self._identifier(table).as_string(cursor), columns],
        )
        if cursor.fetchone():
            return
        keys = SQL(", ").join(map(Identifier, key))
        cursor.execute(
            SQL("SELECT {keys}, count(*) FROM {where} GROUP BY {keys} HAVING count(*) > 1 LIMIT 3").format(
                keys=keys, where=where
            )
        )
        if repeated := cursor.fetchall():
            shown = "; ".join(", ".join(map(str, row[:-1])) for row in repeated)
            raise DataError(
                f"table {self._full(table)}: {', '.join(key)} must be unique in a run, and is repeated for "
                f"{shown}; "
                "make the scored rows unique"
            )


def address_of(database_url: str) -> dict[str, Any]:
    """What libpq calls the parts of `postgresql[+driver]://user:password@host:port/database?option=…`.

    Raises:
        DataError: it is no such address; the message does not repeat it, for the password in it.
    """
    try:
        url = urlsplit(database_url)
        parts = {
            "host": url.hostname or "",
            "port": str(url.port or 5432),
            "dbname": unquote(url.path.lstrip("/")),
            "user": unquote(url.username or ""),
            "password": unquote(url.password or ""),
        }
        if not url.scheme.startswith("postgres") or not parts["dbname"] or "@" in parts["dbname"]:
            raise ValueError
    except ValueError:
        raise DataError(
            "MLPLATFORM_DATABASE_URL is no address postgresql://user:password@host:port/database; in the "
            "password, characters such as / @ : # must be percent-encoded"
        ) from None
    return {**parts, **dict(parse_qsl(url.query))}


def _arrow_type(column: Any) -> pa.DataType:
    """Integers become int64 and other numbers float64, as they are in files; what is no type of ours, "
    "text."""
    import pyarrow as pa

    code = column.type_code
    if code == NUMERIC and column.scale == 0 and (column.precision or 99) <= 18:
        return pa.int64()
    return {
        16: pa.bool_(),
        20: pa.int64(),
        21: pa.int64(),
        23: pa.int64(),
        26: pa.int64(),
        700: pa.float64(),
        701: pa.float64(),
        NUMERIC: pa.float64(),
        1082: pa.date32(),
        1114: pa.timestamp("us"),
        1184: pa.timestamp("us", "UTC"),
    }.get(code, pa.string())


NUMERIC = 1700


def _sql_type(kind: pa.DataType) -> str:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _sql_type(cast(Any, kind).value_type)
    if pa.types.is_boolean(kind):
        return "BOOLEAN"
    if pa.types.is_integer(kind):
        return "BIGINT"
    if pa.types.is_floating(kind):
        return "DOUBLE PRECISION"
    if pa.types.is_date(kind):
        return "DATE"
    if pa.types.is_timestamp(kind):
        return "TIMESTAMP WITH TIME ZONE" if cast(Any, kind).tz else "TIMESTAMP"
    if pa.types.is_decimal(kind):
        return "NUMERIC"
    return "TEXT"


class _Lines:
    """The rows as the file that COPY reads; `rows` counts them, `error` is what stopped them."""

    def __init__(
        self,
        table: str,
        first: pa.RecordBatch,
        others: Iterator[pa.RecordBatch],
        columns: Mapping[str, pa.DataType],
    ) -> None:
        self._table = table
        self._first: pa.RecordBatch | None = first
        self._others = others
        self._names = first.schema.names
        self._columns = columns
        self._left = memoryview(b"")
        self.rows = 0
        self.error: Exception | None = None

    def read(self, size: int = -1) -> bytes:
        try:
            while not self._left:
                batch, self._first = self._first or next(self._others, None), None
                if batch is None:
                    return b""
                self._left = memoryview(self._lines(batch))
        except Exception as error:
            self.error = error
            raise
        taken, self._left = self._left[:size], self._left[size:]
        return bytes(taken)

    def _lines(self, batch: pa.RecordBatch) -> pa.Buffer:
        import pyarrow as pa

        if batch.schema.names != self._names:
            raise DataError(
                f"table {self._table}: a chunk has the columns {', '.join(batch.schema.names)}, the first "
                "one had "
                f"{', '.join(self._names)}; they must be the same"
            )
        self.rows += batch.num_rows
        batch = decoded(batch)
        columns = [
            self._whole_numbers(name, column) if pa.types.is_floating(column.type) else column
            for name, column in zip(self._names, batch.columns, strict=True)
        ]
        try:
            return csv_lines(pa.RecordBatch.from_arrays(columns, names=self._names))
        except pa.ArrowException as error:
            raise DataError(f"table {self._table}: the rows have no form that COPY knows: {error}") from error

    def _whole_numbers(self, name: str, column: pa.Array) -> pa.Array:
        """1e20 and 1.5 are no integers for COPY, and 1e6 would not be one either, if written so."""
        import pyarrow as pa

        if not pa.types.is_integer(self._columns[name]):
            return column
        try:
            return column.cast(pa.int64())
        except pa.ArrowInvalid as error:
            raise DataError(
                f"table {self._table}, column {name}: it holds integers, and a value is none ({error}); "
                "round the values, or make the column DOUBLE PRECISION"
            ) from error


def _streamed(
    cursor: Cursor, query: Composable, columns: Mapping[str, pa.DataType]
) -> Iterator[pa.RecordBatch]:
    """What COPY sends, parsed while it comes: a thread fills a pipe, this one empties it."""
    import pyarrow as pa
    from pyarrow import csv

    reading, writing = os.pipe()
    failures: list[Exception] = []

    def fill() -> None:
        try:
            with os.fdopen(writing, "wb", PIPE_BYTES) as pipe:
                cursor.copy_expert(query, pipe)
        except Exception as error:
            failures.append(error)

    thread = threading.Thread(target=fill, name="copy", daemon=True)
    thread.start()
    complete = False
    try:
        with os.fdopen(reading, "rb", PIPE_BYTES) as pipe:
            try:
                yield from csv.open_csv(
                    pipe,
                    csv.ReadOptions(column_names=list(columns), block_size=BLOCK_BYTES),
                    csv.ParseOptions(newlines_in_values=True),
                    csv.ConvertOptions(
                        column_types=dict(columns),
                        null_values=[""],
                        strings_can_be_null=True,
                        quoted_strings_can_be_null=False,
                        true_values=["t"],
                        false_values=["f"],
                    ),
                )
                complete = True
            except pa.ArrowInvalid as error:
                thread.join()
                if not failures and "Empty CSV file" not in str(error):
                    raise DataError(f"a value has no form here: {error}; leave it out by a view") from error
                complete = True
    finally:
        if not complete:
            # Nobody wants the rest: the server stops, and the thread with it.
            cursor.connection.cancel()
        thread.join()
    if failures:
        raise failures[0]
