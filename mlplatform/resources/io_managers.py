"""IO managers: where an asset's value goes on the object store, by the kind of value that it is."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import dagster as dg

from mlplatform.io.states import Commit
from mlplatform.io.tables import Table
from mlplatform.resources.stores import Stores

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Append:
    """Rows for the table that an asset is, of one stream up to `head` (see `Table.append`)."""

    rows: "pa.Table"
    stream: str
    head: int
    expected: Mapping[str, int] = field(default_factory=dict)
    also: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class ShardFrame:
    """The newest frame of one shard."""

    rows: "pa.Table"
    shard: int


class TableIOManager(dg.ConfigurableIOManager):
    """Appends to the Delta table named by the first part of the asset's key; None appends nothing.

    An input is the `Table` itself, of which the asset reads what it needs.
    """

    stores: Stores

    def handle_output(self, context: dg.OutputContext, obj: Append | None) -> None:
        table = self.stores.table(context.asset_key.path[0])
        written = 0
        if obj is not None:
            written = table.append(obj.rows, obj.stream, obj.head, expected=obj.expected, also=obj.also)
        context.add_output_metadata({"dagster/row_count": written, "dagster/uri": table.url})

    def load_input(self, context: dg.InputContext) -> Table:
        return self.stores.table(context.asset_key.path[0])


class SnapshotIOManager(dg.ConfigurableIOManager):
    """Commits a snapshot over the version that its state came from; None commits nothing."""

    stores: Stores

    def handle_output(self, context: dg.OutputContext, obj: Commit | None) -> None:
        if obj is None:
            return
        snapshot = obj.snapshot
        self.stores.snapshots.commit(snapshot, obj.etag)
        key = self.stores.snapshots.key(snapshot.name, snapshot.shard)
        context.add_output_metadata(
            {
                "snapshot_bytes": len(snapshot.payload),
                "digest": snapshot.digest[:12],
                "dagster/uri": self.stores.objects.url(key),
            }
        )

    def load_input(self, context: dg.InputContext) -> Any:
        raise NotImplementedError("states are loaded by name, with the versions that they must have")


class FrameIOManager(dg.ConfigurableIOManager):
    """Writes a frame as one Parquet object, named by the asset's key and the shard."""

    stores: Stores

    def handle_output(self, context: dg.OutputContext, obj: ShardFrame | None) -> None:
        if obj is None:
            return
        address = self.stores.frames.write("/".join([*context.asset_key.path, str(obj.shard)]), obj.rows)
        context.add_output_metadata({"dagster/row_count": len(obj.rows), "dagster/uri": address})

    def load_input(self, context: dg.InputContext) -> Any:
        raise NotImplementedError("frames show the newest state; assets read tables and states")
