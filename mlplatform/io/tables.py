"""Append-only Delta tables on the object store, idempotent by the position of what they hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mlplatform.io.object_store import Conflict, ObjectStore, StoreUnavailable

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds
    from deltalake import DeltaTable

PREFIX = "tables"


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

        types = {"timestamp": pa.timestamp("us", "UTC")}
        return pa.schema([(n, types.get(t) or pa.type_for_alias(t)) for n, t in self.columns.items()])


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

    def open(self) -> DeltaTable | None:
        """The newest version, or None before the first append."""
        from deltalake import DeltaTable
        from deltalake.exceptions import TableNotFoundError

        try:
            return DeltaTable(self.url, storage_options=self._store.delta_options)
        except TableNotFoundError:
            return None
        except OSError as error:
            raise self._unavailable(error) from error

    def heads(self, *streams: str) -> list[int]:
        """How far each stream has been written; 0 before its first append."""
        table = self.open()
        return [(table.transaction_version(s) if table else None) or 0 for s in streams]

    def head(self, stream: str) -> int:
        return self.heads(stream)[0]

    def append(
        self,
        rows: pa.Table,
        stream: str,
        head: int,
        *,
        expected: Mapping[str, int] | None = None,
        also: Mapping[str, int] | None = None,
    ) -> int:
        """Appends the rows that the stream does not have yet, and moves its head to `head`.

        Args:
            rows: in order of positions; those below the stream's present head are left out.
            expected: heads that this append is based on.
            also: further heads to move in the same transaction.

        Returns:
            How many rows were written.

        Raises:
            Conflict: a head is not as expected, or another append came first.
        """
        import pyarrow.compute as pc
        from deltalake import CommitProperties, Transaction, write_deltalake
        from deltalake.exceptions import CommitFailedError

        table = self.open() or self._create()
        present = table.transaction_version(stream) or 0
        for name, value in (expected or {}).items():
            found = table.transaction_version(name) or 0
            if found != value:
                raise Conflict(f"{self.url}: {name} is at {found}, not at {value}")
        heads = {stream: head, **(also or {})}
        if all((table.transaction_version(name) or 0) >= at for name, at in heads.items()):
            return 0
        rows = rows.filter(pc.greater_equal(rows[self.spec.position], present))
        commit = CommitProperties(app_transactions=[Transaction(name, at) for name, at in heads.items()])
        try:
            if len(rows):
                write_deltalake(table, rows, mode="append", schema_mode="merge", commit_properties=commit)
            else:
                partitions = list(self.spec.partition_by)
                table.create_write_transaction(
                    [], "append", table.schema(), partitions, commit_properties=commit
                )
        except CommitFailedError as error:
            raise Conflict(f"{self.url}: {stream} was moved on by another writer") from error
        except OSError as error:
            raise self._unavailable(error) from error
        return len(rows)

    def read(
        self, columns: list[str] | None = None, start: int = 0, where: ds.Expression | None = None
    ) -> pa.Table:
        """Rows from position `start` on for which `where` holds, sorted by position."""
        import pyarrow.dataset as ds

        table = self.open()
        if table is None:
            return self.spec.schema.empty_table().select(columns or list(self.spec.columns))
        condition = ds.field(self.spec.position) >= start
        if where is not None:
            condition &= where
        names = columns and list(dict.fromkeys([*columns, self.spec.position]))
        try:
            rows = table.to_pyarrow_dataset().to_table(columns=names, filter=condition)
        except OSError as error:
            raise self._unavailable(error) from error
        return rows.sort_by(self.spec.position)

    def replace(self, rows: pa.Table, predicate: str) -> None:
        """Puts `rows` in the place of those that the SQL predicate selects, in one transaction."""
        from deltalake import write_deltalake

        write_deltalake(
            self.open() or self._create(), rows, mode="overwrite", predicate=predicate, schema_mode="merge"
        )

    def compact(self, keep_hours: int) -> dict[str, int]:
        """Merges small files and drops those that no version younger than `keep_hours` needs."""
        table = self.open()
        if table is None:
            return {"files": 0, "removed": 0}
        merged = table.optimize.compact()
        table.create_checkpoint()
        table.cleanup_metadata()
        dropped = table.vacuum(keep_hours, dry_run=False, enforce_retention_duration=False)
        return {"files": len(table.file_uris()), "merged": merged["numFilesRemoved"], "removed": len(dropped)}

    def _create(self) -> DeltaTable:
        from deltalake import DeltaTable

        return DeltaTable.create(
            self.url,
            self.spec.schema,
            mode="ignore",
            partition_by=list(self.spec.partition_by),
            storage_options=self._store.delta_options,
        )

    def _unavailable(self, error: Exception) -> StoreUnavailable:
        first_line = str(error).strip().splitlines()[0]
        return StoreUnavailable(f"{self.url}: {first_line}; look at `mlplatform status`")
