"""What the feature service has on the object store: its shard of the log, and the ends of its series."""

from __future__ import annotations

import logging
import os
import socket
import uuid
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.domain.families import Families
from mlplatform.domain.observations import Refusal, Tail
from mlplatform.errors import PlatformError
from mlplatform.io.journal import Entry, Journal
from mlplatform.io.leases import Lease
from mlplatform.io.object_store import Conflict
from mlplatform.io.observation_log import (
    LOG,
    QUARANTINE,
    log_stream,
    owner_stream,
    quarantine_rows,
    source_stream,
)
from mlplatform.io.states import FORMAT, State
from mlplatform.io.stores import Stores
from mlplatform.io.tables import literal
from mlplatform.settings import Settings

if TYPE_CHECKING:
    import arro3.core as arro3

# The name of the snapshot, and the source of what comes by HTTP.
NAME = "features"
# So many entries become one file of the table.
ENTRIES_AT_ONCE = 5_000

log = logging.getLogger(__name__)


class NotOwner(PlatformError):
    """Another process writes to the shard; this one must not any more."""


class LogLost(PlatformError):
    """The table has less than was written to it."""


@dataclass(frozen=True, slots=True)
class Series:
    """The end of one series' log, with the id of its last observation."""

    tail: Tail
    observation_id: str

    def values(self, lags: int) -> tuple[float, ...]:
        """The newest values, newest first."""
        return self.tail.values[:lags]

    @property
    def offset(self) -> int:
        """Offset of the last observation."""
        return self.tail.next_offset - 1


class FeatureLog:
    """One shard of the log, whose tail is in the journal. Blocks; belongs to one thread at a time."""

    def __init__(self, settings: Settings, journal: Journal, families: Families) -> None:
        self._shard = settings.service_shard
        self._journal = journal
        self._families = families
        self._versions = {"format": FORMAT, "families": families.version}
        stores = Stores(settings)
        self._log = stores.table(LOG.name)
        self._quarantine = stores.table(QUARANTINE.name)
        self._snapshots = stores.snapshots
        self._states = stores.states
        self._leases = stores.leases
        self._owner = _owner(settings.data_directory / "services" / f"{NAME}-{self._shard}.owner")
        self._lease: Lease | None = None
        self._held = ExitStack()
        # The ends of the series in the table, at this position; what the stored snapshot has; and its etag.
        self._series: dict[str, Series] = {}
        self._position = 0
        self._snapshot_position = 0
        self._etag: str | None = None
        self._quarantined = 0

    @property
    def position(self) -> int:
        """How far the table has the entries of the journal."""
        return self._position

    def recover(self) -> tuple[dict[str, Series], bool]:
        """The ends of all series: the snapshot, the table's rows after it, the journal's after those.

        Returns:
            They, and whether the journal was behind the table, as it is when its disk was lost.

        Raises:
            LogLost: the journal knows of more than the table has.
            LeaseHeld: another process owns the shard.
            StoreUnavailable: the store does not answer.
        """
        self._own()
        head = self._log.head(log_stream(self._shard))
        if self._journal.forgotten > head:
            raise LogLost(
                f"the journal has given {self._journal.forgotten} observations to {self._log.url}, which has"
                f" {head} of shard {self._shard}: point at the object store and the prefix that it was"
                " written with, or start with an empty MLPLATFORM_DATA_DIRECTORY"
            )
        own = f"shard = {self._shard}"
        lost = self._journal.next_position < head
        if lost:
            log.warning("the journal is behind the log, as after the loss of its disk: restored from the log")
            ids = self._log.select(["series_id", "observation_id", "offset"], own)
            # The rest of each answer is in the log, for who asks for it.
            self._journal.restore(
                head, [(row["series_id"], row["observation_id"], {"offset": row["offset"]}) for row in ids]
            )
        state = self._states.load(NAME, self._shard, self._versions, {})
        if state.refused:
            log.warning("the series are read again from the log: %s", state.refused)
        self._series, self._position, self._etag = state.content, state.position, state.etag
        self._snapshot_position = state.position
        self._quarantined = self._quarantine.head(source_stream(NAME, self._shard))
        if self._position < head:
            rows = self._log.select(list(LOG.columns), f"{own} AND position >= {self._position}")
            move_on(self._series, map(_entry, rows), self._families)
            self._position = head
        series = dict(self._series)
        position = head
        while entries := self._journal.since(position, ENTRIES_AT_ONCE):
            move_on(series, entries, self._families)
            position = entries[-1].position + 1
        return series, lost

    def flush(self, upto: int, refusals: Sequence[Refusal]) -> None:
        """Appends the entries below `upto` and the refusals, commits a snapshot, and lets the journal forget.

        What was done when it fails is not done again. The refusals must be those of the last time that
        failed, and further ones after them.

        Raises:
            NotOwner: another process owns the shard now.
            StoreUnavailable: the store does not answer.
            Conflict: another writer came first; it helps to try again.
        """
        lease = self._own()
        stream, owner = log_stream(self._shard), owner_stream(self._shard)
        head, fence = self._log.heads(stream, owner)
        # Where the head is further than we know, our last attempt got through, and only its answer did not.
        ours = head == self._position or (fence == lease.token and self._position < head <= upto)
        if fence > lease.token or not ours:
            raise NotOwner(
                f"shard {self._shard} was written by another process (position {head}, token {fence}; ours"
                f" are {self._position} and {lease.token}): give each its own"
                " MLPLATFORM_SERVICE_ORDINAL, and start this one again"
            )
        while self._position < upto:
            entries = self._journal.since(self._position, min(upto - self._position, ENTRIES_AT_ONCE))
            end = entries[-1].position + 1
            if head < end:
                self._log.append(
                    _rows(entries, self._shard),
                    stream,
                    end,
                    expected={stream: head, owner: fence},
                    also={owner: lease.token},
                )
                head, fence = end, lease.token
            move_on(self._series, entries, self._families)
            self._position = end
        self._flush_refusals(refusals)
        if self._snapshot_position < self._position:
            self._commit_snapshot()
            self._journal.forget(self._position)

    def owner_of(self, series_id: str) -> int | None:
        """The shard that has the series, if it is another than this one."""
        elsewhere = f"series_id = {literal(series_id)} AND shard <> {self._shard}"
        return next((row["shard"] for row in self._log.select(["shard"], elsewhere, limit=1)), None)

    def recall(self, series_id: str, offset: int) -> Entry:
        """What the log has at that offset, with the values before it as `lags`, newest first."""
        start = offset - self._families.of(series_id).lags
        wanted = f"shard = {self._shard} AND series_id = {literal(series_id)}"
        within = f'{wanted} AND "offset" BETWEEN {start} AND {offset}'
        *before, row = self._log.select(list(LOG.columns), within)
        return _entry(row, tuple(each["value"] for each in reversed(before)))

    def release(self) -> None:
        """Ends the ownership, so that the next owner need not wait."""
        self._held.close()
        if self._lease is not None:
            self._leases.release(self._shard, self._owner)
            self._lease = None

    def _own(self) -> Lease:
        if self._lease is None:
            self._lease = self._held.enter_context(self._leases.hold(self._shard, self._owner, patience=0))
        return self._lease

    def _flush_refusals(self, refusals: Sequence[Refusal]) -> None:
        if refusals:
            first = refusals[0].submission.source_position
            end = first + len(refusals)
            self._quarantine.append(quarantine_rows(refusals), source_stream(NAME, self._shard), end)
            self._quarantined = end

    @property
    def quarantined(self) -> int:
        """Position of the first refusal that the quarantine does not have."""
        return self._quarantined

    def _commit_snapshot(self) -> None:
        state = State(self._series, self._position, etag=self._etag)
        metadata = {"series": len(self._series)}
        commit = self._states.prepare(NAME, self._shard, self._versions, state, metadata)
        try:
            self._etag = self._snapshots.commit(commit.snapshot, commit.etag)
        except Conflict:
            # The log's heads have decided who owns the shard: what is there is older.
            _, self._etag, _ = self._snapshots.load(NAME, self._shard, self._versions)
            raise
        self._snapshot_position = self._position


def move_on(series: dict[str, Series], entries: Iterable[Entry], families: Families) -> None:
    """Moves the ends of the series on, in place, by entries that follow them.

    Raises:
        LogLost: one does not follow.
    """
    for entry in entries:
        before = series.get(entry.series_id)
        tail = before.tail if before else Tail()
        if entry.offset != tail.next_offset:
            raise LogLost(
                f"series {entry.series_id!r} has offset {entry.offset} after {tail.next_offset - 1}: its log"
                " was changed by other means; start a new one with another MLPLATFORM_S3_PREFIX"
            )
        lags = families.of(entry.series_id).lags
        series[entry.series_id] = Series(
            tail.extended(entry.event_time, entry.value, lags), entry.observation_id
        )


def _entry(row: Mapping[str, Any], lags: tuple[float, ...] | None = None) -> Entry:
    """A row of the table as what it was in the journal, without its answer."""
    return Entry(
        row["position"],
        row["series_id"],
        row["offset"],
        row["observation_id"],
        row["event_time"],
        row["value"],
        {},
        row["ingested_at"],
        lags,
    )


def _rows(entries: Sequence[Entry], shard: int) -> arro3.Table:
    return LOG.table(
        {
            "shard": [shard] * len(entries),
            "position": [each.position for each in entries],
            "series_id": [each.series_id for each in entries],
            "offset": [each.offset for each in entries],
            "observation_id": [each.observation_id for each in entries],
            "event_time": [each.event_time for each in entries],
            "ingested_at": [each.ingested_at for each in entries],
            "value": [each.value for each in entries],
            "source": [NAME] * len(entries),
        }
    )


def _owner(path: Path) -> str:
    """Names whoever has this disk, which is one process at a time: it need not wait for its own lease."""
    try:
        return path.read_text()
    except FileNotFoundError:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft = path.with_suffix(".draft")
        draft.write_text(f"{NAME} on {socket.gethostname()} ({uuid.uuid4().hex[:12]})")
        os.replace(draft, path)
        return path.read_text()
