"""Leases: who may move a shard's log on, until when, and with which fencing token."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

from mlplatform.io.object_store import Conflict, ObjectStore, StoreUnavailable

PREFIX = "leases"
# When a lease expires that its owner has ended.
RELEASED = 0.0


class LeaseHeld(Exception):
    """Another owner holds a live lease; the message names it."""


@dataclass(frozen=True)
class Lease:
    """`token` grows with each new owner: a table that has seen a larger one refuses the smaller."""

    owner: str
    token: int
    expires_at: float

    @property
    def live(self) -> bool:
        return time.time() < self.expires_at


class Leases:
    """One object per shard, taken and kept by conditional writes.

    Args:
        seconds: how long a lease lives after its owner last renewed it.
    """

    def __init__(self, store: ObjectStore, seconds: float = 30.0) -> None:
        self._store = store
        self._seconds = seconds

    def current(self, shard: int) -> Lease | None:
        return self._read(shard)[0]

    @contextmanager
    def hold(self, shard: int, owner: str, patience: float | None = None) -> Iterator[Lease]:
        """Owns the shard while the block runs, renewing in the background.

        Args:
            patience: seconds to wait for another owner; None: as long as a dead one would block.

        Raises:
            LeaseHeld: another owner renews its lease.
        """
        lease = self._wait(shard, owner, 1.5 * self._seconds if patience is None else patience)
        stop = threading.Event()

        def renew() -> None:
            while not stop.wait(self._seconds / 3):
                try:
                    if not self._renew(shard, lease):
                        return
                except (Conflict, StoreUnavailable):
                    # Another step of the same owner renewed it, or the next attempt may get through.
                    continue

        thread = threading.Thread(target=renew, name=f"lease-{shard}", daemon=True)
        thread.start()
        try:
            yield lease
        finally:
            stop.set()
            thread.join()

    def release(self, shard: int, owner: str) -> None:
        """Ends the owner's lease at once; its token stays known."""
        while True:
            lease, etag = self._read(shard)
            if lease is None or lease.owner != owner:
                return
            try:
                self._write(shard, Lease(owner, lease.token, RELEASED), etag)
            except Conflict:
                # It was renewed at the same moment.
                continue
            return

    def _wait(self, shard: int, owner: str, patience: float) -> Lease:
        deadline = time.monotonic() + patience
        while True:
            try:
                return self._take(shard, owner)
            except LeaseHeld:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(min(1.0, self._seconds / 5))

    def _take(self, shard: int, owner: str) -> Lease:
        lease, etag = self._read(shard)
        token = 1
        if lease is not None:
            if lease.owner != owner and lease.live:
                left = lease.expires_at - time.time()
                raise LeaseHeld(f"shard {shard} belongs to {lease.owner} for another {left:.0f} s")
            token = lease.token if lease.owner == owner else lease.token + 1
        taken = Lease(owner, token, time.time() + self._seconds)
        try:
            self._write(shard, taken, etag)
        except Conflict as conflict:
            raise LeaseHeld(f"shard {shard} was taken at the same moment") from conflict
        return taken

    def _renew(self, shard: int, lease: Lease) -> bool:
        """False if the lease was released, or is another's: then whoever has the shard keeps it."""
        current, etag = self._read(shard)
        if current is None or (current.owner, current.token) != (lease.owner, lease.token):
            return False
        if current.expires_at == RELEASED:
            return False
        self._write(shard, Lease(lease.owner, lease.token, time.time() + self._seconds), etag)
        return True

    def _read(self, shard: int) -> tuple[Lease | None, str | None]:
        stored = self._store.get(f"{PREFIX}/{shard}")
        return (Lease(**json.loads(stored.content)), stored.etag) if stored else (None, None)

    def _write(self, shard: int, lease: Lease, etag: str | None) -> None:
        self._store.put_if(f"{PREFIX}/{shard}", json.dumps(asdict(lease)).encode(), etag)
