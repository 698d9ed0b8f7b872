"""Append-only Delta tables on the object store, idempotent by the position of what they hold."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import wraps
from itertools import accumulate, chain
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from mlplatform.io.object_store import Conflict, ObjectStore
from mlplatform.io.times import micros

if TYPE_CHECKING:
    import arro3.core as arro3
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

PREFIX = "tables"
# One commit a minute: a reader has to replay the commits since the last checkpoint, so that it must
# not be far, and old commits are of no use to anybody.
CONFIGURATION = {"delta.checkpointInterval": "20", "delta.logRetentionDuration": "interval 2 days"}
# A handle that follows a table for ever grows with each commit; opened anew, it is as large as the table.
COMMITS_A_HANDLE = 100

Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


def _one_at_a_time(
    method: Callable[Concatenate[Table, Parameters], Result],
) -> Callable[Concatenate[Table, Parameters], Result]:
    @wraps(method)
    def in_turn(table: Table, *arguments: Parameters.args, **named: Parameters.kwargs) -> Result:
        with table.turn:
            return method(table, *arguments, **named)

    return in_turn


@dataclass(frozen=True)
class TableSpec:
    """Name, columns and partitions of a table.

    `columns` maps names to Arrow types by their names. `position` is the column that orders the
    rows of one stream.
    """

    name: str
    columns: Mapping[str, str]
    position: str
    partition_by: tuple[str, ...] = ()

    @property
    def schema(self) -> pa.Schema:
        import pyarrow as pa

        return pa.schema(self.arrow_schema)

    def table(self, columns: Mapping[str, Sequence[Any]]) -> arro3.Table:
        """The values of all columns as a table that can be appended.

        Made without pyarrow, which with pandas, that it looks for, takes 80 MB of a process.
        """
        from arro3.core import Table

        arrays = [_array(columns[field.name], field.type) for field in self.arrow_schema]
        return Table.from_arrays(arrays, schema=self.arrow_schema)

    @property
    def arrow_schema(self) -> arro3.Schema:
        from arro3.core import DataType, Field, Schema

        types = {
            "timestamp": DataType.timestamp("us", tz="UTC"),
            "list<float64>": DataType.list(Field("item", DataType.float64(), nullable=True)),
        }
        fields = [
            Field(name, types.get(alias) or getattr(DataType, alias)(), nullable=True)
            for name, alias in self.columns.items()
        ]
        return Schema(fields)


class Table:
    """An append-only table of streams.

    A stream is what one writer at a time appends in order of positions; its head (how far it has
    been written) is committed in the same Delta transaction as the rows, so that an append that is
    tried again writes nothing twice, and two appends at once cannot both succeed.
    """

    def __init__(self, spec: TableSpec, store: ObjectStore) -> None:
        self.spec = spec
        self.url = store.url(f"{PREFIX}/{spec.name}")
        self._store = store
        # A handle that moves to a newer version under a writer would move the base of its commit.
        self.turn = threading.RLock()
        self._opened: DeltaTable | None = None
        self._opened_at = 0
        self._heads: tuple[int, dict[str, int]] = (-1, {})
        self._read: tuple[object, ds.Expression, pa.Table] | None = None

    def open(self) -> DeltaTable | None:
        """The newest version, or None before the first append."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        with self._errors_named():
            if self._opened is not None and self._opened.version() < self._opened_at + COMMITS_A_HANDLE:
                # Reads only the commits since: a tenth of the time that opening takes.
                self._opened.update_incremental()
                return self._opened
            try:
                self._opened = DeltaTable(self.url, storage_options=self._store.delta_options)
            except TableNotFoundError:
                return None
        self._opened_at = self._opened.version()
        return self._opened

    @_one_at_a_time
    def heads(self, *streams: str) -> list[int]:
        """How far each stream has been written; 0 before its first append."""
        table = self.open()
        heads = self._heads_of(table, streams) if table else {}
        return [heads.get(stream, 0) for stream in streams]

    def head(self, stream: str) -> int:
        return self.heads(stream)[0]

    @_one_at_a_time
    def append(
        self,
        rows: pa.Table | arro3.Table,
        stream: str,
        head: int,
        *,
        expected: Mapping[str, int] | None = None,
        also: Mapping[str, int] | None = None,
    ) -> int:
        """Appends the rows that the stream does not have yet, and moves its head on to `head`.

        Heads never move back.

        Args:
            rows: in order of positions; those below the stream's present head are left out.
            expected: heads that this append is based on.
            also: further heads to move in the same transaction.

        Returns:
            How many rows were written.

        Raises:
            Conflict: a head is not as expected, or another append came first.
        """
        from deltalake import CommitProperties, Transaction, write_deltalake

        table = self.open() or self._create()
        heads = {stream: head, **(also or {})}
        present = self._heads_of(table, {*heads, *(expected or {})})
        for name, value in (expected or {}).items():
            if present[name] != value:
                raise Conflict(f"{self.url}: {name} is at {present[name]}, not at {value}")
        if all(present[name] >= at for name, at in heads.items()):
            return 0
        positions = rows[self.spec.position]
        if len(rows) and positions[0].as_py() < present[stream]:
            rows = rows.slice(bisect_left(positions.to_pylist(), present[stream]))
        commit = CommitProperties(
            app_transactions=[Transaction(name, max(at, present[name])) for name, at in heads.items()]
        )
        with self._errors_named():
            if len(rows):
                write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=commit)
            else:
                partitions = list(self.spec.partition_by)
                table.create_write_transaction(
                    [], "append", table.schema(), partitions, commit_properties=commit
                )
        return len(rows)

    @_one_at_a_time
    def read(
        self, columns: list[str] | None = None, start: int = 0, where: ds.Expression | None = None
    ) -> pa.Table:
        """Rows from position `start` on for which `where` holds, sorted by position.

        The position is there also if `columns` does not name it.
        """
        import pyarrow.dataset as ds

        names = columns and list(dict.fromkeys([*columns, self.spec.position]))
        table = self.open()
        if table is None:
            return self.spec.schema.empty_table().select(names or list(self.spec.columns))
        condition = ds.field(self.spec.position) >= start
        if where is not None:
            condition &= where
        # Every model of a run asks for the same rows.
        asked = (table.version(), names)
        if self._read is None or self._read[0] != asked or not self._read[1].equals(condition):
            with self._errors_named():
                rows = table.to_pyarrow_dataset().to_table(columns=names, filter=condition)
            self._read = (asked, condition, rows.sort_by(self.spec.position))
        return self._read[2]

    def select(
        self, columns: Sequence[str], where: str = "true", limit: int | None = None
    ) -> Iterator[dict[str, Any]]:
        """Rows for which the SQL condition holds, in order of positions, one by one; without pyarrow, too.

        Raises:
            StoreUnavailable: the store does not answer, or fails on the way.
        """
        from deltalake import QueryBuilder

        with self.turn:
            table = self.open()
            if table is None:
                return
            query = QueryBuilder().register("rows", table)
        names = ", ".join(f'"{name}"' for name in columns)
        ending = "" if limit is None else f" LIMIT {limit}"
        with self._errors_named():
            for batch in query.execute(
                f'SELECT {names} FROM rows WHERE {where} ORDER BY "{self.spec.position}"{ending}'  # noqa: S608
            ):
                found = [batch[name].to_pylist() for name in columns]
                for row in zip(*found, strict=True):
                    yield dict(zip(columns, row, strict=True))

    @_one_at_a_time
    def replace(self, rows: pa.Table, predicate: str) -> None:
        """Puts `rows` in the place of those that the SQL predicate selects, in one transaction.

        Raises:
            Conflict: another writer came first.
        """
        from deltalake import write_deltalake

        table = self.open() or self._create()
        with self._errors_named():
            write_deltalake(table, rows, mode="overwrite", predicate=predicate, schema_mode="merge")

    @_one_at_a_time
    def compact(self, keep_hours: int) -> dict[str, int]:
        """Merges small files and drops those that no version younger than `keep_hours` needs."""
        table = self.open()
        if table is None:
            return {"files": 0, "merged": 0, "removed": 0}
        with self._errors_named():
            merged = table.optimize.compact()
            table.create_checkpoint()
            table.cleanup_metadata()
            # Full: also what killed writers left, which no version names.
            dropped = table.vacuum(keep_hours, dry_run=False, enforce_retention_duration=False, full=True)
        return {"files": len(table.file_uris()), "merged": merged["numFilesRemoved"], "removed": len(dropped)}

    def _heads_of(self, table: DeltaTable, streams: Collection[str]) -> dict[str, int]:
        """Heads at the table's version; Delta searches for each as long as it takes to open a table."""
        version = table.version()
        if self._heads[0] != version:
            self._heads = (version, {})
        known = self._heads[1]
        with self._errors_named():
            for stream in streams:
                if stream not in known:
                    known[stream] = table.transaction_version(stream) or 0
        return known

    def _create(self) -> DeltaTable:
        from deltalake import CommitProperties, DeltaTable
        from deltalake.exceptions import CommitFailedError

        with self._errors_named():
            try:
                return DeltaTable.create(
                    self.url,
                    self.spec.arrow_schema,
                    mode="ignore",
                    partition_by=list(self.spec.partition_by),
                    configuration=CONFIGURATION,
                    storage_options=self._store.delta_options,
                    # Tried again, it would follow another's creation, and change the schema under others.
                    commit_properties=CommitProperties(max_commit_retries=0),
                )
            except CommitFailedError:
                # Someone else created it at the same moment.
                return DeltaTable(self.url, storage_options=self._store.delta_options)

    @contextmanager
    def _errors_named(self) -> Iterator[None]:
        from deltalake.exceptions import CommitFailedError

        try:
            yield
        except CommitFailedError as error:
            raise Conflict(f"{self.url} was changed by another writer: {error}") from error
        except OSError as error:
            raise self._store.unavailable(error) from error
        except Exception as error:
            # A store that fails while a file is on its way: for that, deltalake has no class of its own.
            if not any(said in str(error) for said in ("Generic S3 error", "Object Store error")):
                raise
            raise self._store.unavailable(error) from error


def _array(values: Sequence[Any], kind: arro3.DataType) -> arro3.Array:
    """As arro3 itself makes one, and of datetimes and lists of numbers, of which it does not."""
    from arro3.core import Array, DataType, list_array

    if DataType.is_timestamp(kind):
        return Array([None if each is None else micros(each) for each in values], DataType.int64()).cast(kind)
    if DataType.is_list(kind):
        ends = accumulate(map(len, values), initial=0)
        numbers = list(chain.from_iterable(values))
        return list_array(Array(list(ends), DataType.int32()), Array(numbers, DataType.float64()), type=kind)
    return Array(values, kind)


def literal(text: str) -> str:
    """The text as SQL has it."""
    return "'" + text.replace("'", "''") + "'"
