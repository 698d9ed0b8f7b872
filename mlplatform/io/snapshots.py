"""Snapshots: state, position and versions, committed as one signed object."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime

from mlplatform.io.object_store import ObjectStore
from mlplatform.io.signing import SIGNATURE_BYTES, Signer

PREFIX = "snapshots"
MAGIC = b"mlplatform snapshot 1\n"


class SnapshotRefused(Exception):
    """A stored snapshot is torn, forged, or from other versions; the remedy is a replay."""


@dataclass(frozen=True)
class Snapshot:
    """State after everything below `position` of a shard's log was learned.

    `versions` names everything that the payload's meaning depends on. `metadata` is for people.
    """

    name: str
    shard: int
    position: int
    payload: bytes = field(repr=False)
    versions: Mapping[str, str]
    metadata: Mapping[str, object] = field(default_factory=dict)
    created_at: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.payload).hexdigest()


class SnapshotStore:
    """One object per (name, shard), replaced only by a writer that has read the one before."""

    def __init__(self, store: ObjectStore, signer: Signer) -> None:
        self._store = store
        self._signer = signer

    def key(self, name: str, shard: int) -> str:
        return f"{PREFIX}/{name}/{shard}"

    def load(
        self, name: str, shard: int, versions: Mapping[str, str]
    ) -> tuple[Snapshot | None, str | None, str | None]:
        """The snapshot, its etag, and why a stored one was refused.

        A snapshot that cannot be trusted or was made by other versions is not returned; its etag
        is, so that the state rebuilt by replay can take its place.
        """
        stored = self._store.get(self.key(name, shard))
        if stored is None:
            return None, None, None
        try:
            snapshot = self._decode(stored.content)
            if (snapshot.name, snapshot.shard) != (name, shard):
                raise SnapshotRefused(f"it is the snapshot of {snapshot.name}, shard {snapshot.shard}")
            _same_versions(snapshot.versions, versions)
        except SnapshotRefused as refusal:
            return None, stored.etag, str(refusal)
        return snapshot, stored.etag, None

    def read(self, name: str, shard: int) -> Snapshot | None:
        """The snapshot whatever versions made it, to look at; None if there is none that can be trusted."""
        stored = self._store.get(self.key(name, shard))
        try:
            return self._decode(stored.content) if stored else None
        except SnapshotRefused:
            return None

    def etags(self) -> dict[tuple[str, int], str]:
        """The etag of each stored snapshot, by its name and shard."""
        found = {}
        for key, etag in self._store.etags(f"{PREFIX}/").items():
            name, _, shard = key.removeprefix(f"{PREFIX}/").rpartition("/")
            if shard.isdecimal():
                found[name, int(shard)] = etag
        return found

    def commit(self, snapshot: Snapshot, etag: str | None) -> str:
        """Writes the snapshot over the version `etag`; returns the new etag.

        Raises:
            Conflict: another writer came first.
        """
        return self._store.put_if(self.key(snapshot.name, snapshot.shard), self._encode(snapshot), etag)

    def _encode(self, snapshot: Snapshot) -> bytes:
        header = {**asdict(snapshot), "digest": snapshot.digest}
        del header["payload"]
        encoded = json.dumps(header, sort_keys=True).encode()
        content = MAGIC + struct.pack(">I", len(encoded)) + encoded + snapshot.payload
        return content + self._signer.sign(content)

    def _decode(self, stored: bytes) -> Snapshot:
        content, signature = stored[:-SIGNATURE_BYTES], stored[-SIGNATURE_BYTES:]
        if not content.startswith(MAGIC) or not self._signer.verifies(content, signature):
            raise SnapshotRefused("it is torn, or was not signed with this platform's key")
        start = len(MAGIC) + 4
        end = start + struct.unpack(">I", content[len(MAGIC) : start])[0]
        header = json.loads(content[start:end])
        del header["digest"]
        return Snapshot(payload=content[end:], **header)


def _same_versions(found: Mapping[str, str], wanted: Mapping[str, str]) -> None:
    different = [
        f"{name} {found.get(name, 'absent')} instead of {wanted.get(name, 'absent')}"
        for name in sorted({*found, *wanted})
        if found.get(name) != wanted.get(name)
    ]
    if different:
        raise SnapshotRefused(f"it was made with {', '.join(different)}")
