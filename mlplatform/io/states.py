"""States at rest: what a step of the graph loads, moves on and commits as one object."""

from __future__ import annotations

import hashlib
import pickle
import sys
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform import domain
from mlplatform.io.snapshots import Snapshot, SnapshotStore

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.families import Families
    from mlplatform.domain.recipe import Recipe

# Raised when the meaning of the pickled classes changes: older snapshots are then rebuilt by replay.
FORMAT = "1"


@dataclass
class State:
    """What a fold over a shard's log has come to, after everything below `position`.

    `unpublished` are rows that belong to this state and are to be appended to a table; they travel
    in the snapshot, so that one commit decides about both. `etag` is the stored version that this
    state came from, and `refused` why a stored one was not taken.
    """

    content: Any
    position: int = 0
    unpublished: pa.Table | None = None
    etag: str | None = None
    refused: str | None = None

    def move_on(self, position: int, rows: pa.Table, published: int) -> None:
        """Moves to `position`; `rows` are to be appended, with earlier ones that are not `published` yet.

        `published` is how far the table has the rows of this state.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        if self.unpublished is not None:
            waiting = self.unpublished.filter(pc.field("position") >= published)
            # An older version may have left them, with fewer columns.
            rows = pa.concat_tables([waiting, rows], promote_options="default")
        self.position, self.unpublished = position, rows

    def frozen(self) -> bytes:
        """Content and rows as they are now: what changes the content later does not change these bytes."""
        return pickle.dumps((self.content, _to_ipc(self.unpublished)), protocol=5)


@dataclass(frozen=True)
class Commit:
    """A snapshot to be written over the version `etag`."""

    snapshot: Snapshot
    etag: str | None


class StateStore:
    """Loads states from snapshots, and makes the snapshots that commit them."""

    def __init__(self, snapshots: SnapshotStore) -> None:
        self._snapshots = snapshots

    def load(self, name: str, shard: int, versions: Mapping[str, str], empty: Any) -> State:
        """The stored state; `empty` at position 0 if there is none or it is refused."""
        snapshot, etag, refused = self._snapshots.load(name, shard, versions)
        if snapshot is None:
            return State(empty, etag=etag, refused=refused)
        try:
            # The signature was verified: these bytes are our own.
            content, rows = pickle.loads(zlib.decompress(snapshot.payload))  # noqa: S301
        except Exception as error:  # whatever classes raise that are no longer what was pickled
            return State(empty, etag=etag, refused=f"it cannot be read: {type(error).__name__}: {error}")
        return State(content, snapshot.position, _from_ipc(rows), etag)

    def prepare(
        self,
        name: str,
        shard: int,
        versions: Mapping[str, str],
        state: State,
        metadata: Mapping[str, object],
        frozen: bytes | None = None,
    ) -> Commit:
        """The commit that will make this state the stored one, unless another writer comes first.

        Args:
            frozen: the state as `State.frozen` gave it earlier, if it may have gone on since.
        """
        content = state.frozen() if frozen is None else frozen
        snapshot = Snapshot(
            name, shard, state.position, zlib.compress(content, level=1), dict(versions), dict(metadata)
        )
        return Commit(snapshot, state.etag)


def versions_of(recipes: tuple[Recipe, ...], families: Families) -> dict[str, str]:
    """Everything that the meaning of models' states depends on."""
    libraries = sorted({library for recipe in recipes for library in recipe.libraries} | {"numpy"})
    return {
        "format": FORMAT,
        "code": _code(),
        "python": f"{sys.version_info.major}.{sys.version_info.minor}",
        **{library: version(library) for library in libraries},
        **{f"recipe {recipe.name}": recipe.digest for recipe in recipes},
        "families": families.version,
    }


@cache
def _code() -> str:
    """Names the code of the domain by its content: what learns and predicts is all there."""
    sources = sorted(Path(domain.__path__[0]).rglob("*.py"))
    return hashlib.sha256(b"".join(source.read_bytes() for source in sources)).hexdigest()[:12]


def _to_ipc(rows: pa.Table | None) -> bytes | None:
    if rows is None:
        return None
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, rows.schema) as writer:
        writer.write_table(rows)
    return sink.getvalue().to_pybytes()


def _from_ipc(content: bytes | None) -> pa.Table | None:
    if content is None:
        return None
    import pyarrow as pa

    return pa.ipc.open_stream(content).read_all()
