"""The journal of a service: what it has answered for, on this machine's disk before it answers."""

from __future__ import annotations

import json
import sqlite3
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.answers import Answers
from mlplatform.io.times import micros, time_of


class JournalInUse(PlatformError):
    """Another process has the journal open."""


class JournalUnavailable(TransientError):
    """The journal cannot be written; nothing of what was to be appended is in it."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One observation that a service took.

    `position` is dense over all series of the journal, `offset` over one series, both from 0. `lags` is what
    a model was shown, newest first; None where the series' own log says it. `answer` is the reply as a
    JSON object, which a retry with the same `observation_id` gets again.
    """

    position: int
    series_id: str
    offset: int
    observation_id: str
    event_time: datetime
    value: float
    answer: dict[str, Any]
    ingested_at: datetime
    lags: tuple[float, ...] | None = None


class Journal(Answers):
    """The tail of a log that its table on the object store does not have yet, and of every observation that
    there ever was its id and its answer.

    Raises:
        JournalInUse: another process has it.
        JournalUnavailable: it cannot be opened, or is none of this version.
    """

    name = "journal"
    format = 1
    schema = """
    CREATE TABLE entries (
        position INTEGER PRIMARY KEY,
        series_id TEXT NOT NULL,
        "offset" INTEGER NOT NULL,
        observation_id TEXT NOT NULL,
        event_time INTEGER NOT NULL,
        ingested_at INTEGER NOT NULL,
        value REAL NOT NULL,
        lags BLOB
    );
    CREATE TABLE journal (forgotten INTEGER NOT NULL);
    INSERT INTO journal VALUES (0);
    """
    other_format = (
        "{path} is a journal of format {found}, and this mlplatform knows {known}: start once more the"
        " version that wrote it, which hands all of it over when it ends, then move the file away: its ids"
        " come back from the tables"
    )
    in_use = JournalInUse
    unavailable = JournalUnavailable

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        with self._told():
            query = "SELECT forgotten, (SELECT max(position) FROM entries) FROM journal"
            self._forgotten, last = self._database.execute(query).fetchone()
        self._next_position = self._forgotten if last is None else last + 1

    @property
    def next_position(self) -> int:
        """Position of the next entry: one after the last that was ever appended."""
        return self._next_position

    @property
    def forgotten(self) -> int:
        """Entries below this position are no longer here: the table has them."""
        return self._forgotten

    def append(self, entries: Sequence[Entry]) -> None:
        """Appends the entries, all or none; returns when they are on the disk.

        Raises:
            JournalUnavailable: the disk is full or broken.
            ValueError: their positions do not follow the last one, or an observation is here already.
        """
        if not entries:
            return
        first = self._next_position
        if [entry.position for entry in entries] != list(range(first, first + len(entries))):
            raise ValueError(f"the journal is at position {first}, and was given {entries[0].position}…")
        rows = [
            (
                each.position,
                each.series_id,
                each.offset,
                each.observation_id,
                micros(each.event_time),
                micros(each.ingested_at),
                each.value,
                None if each.lags is None else array("d", each.lags).tobytes(),
            )
            for each in entries
        ]
        answers = [(each.series_id, each.observation_id, json.dumps(each.answer)) for each in entries]
        with self._told(), self._transaction() as database:
            try:
                database.executemany("INSERT INTO answers VALUES (?, ?, ?)", answers)
            except sqlite3.IntegrityError as error:
                raise ValueError("an observation is in the journal already") from error
            database.executemany("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
        self._next_position = first + len(entries)

    def since(self, position: int, limit: int = 100_000) -> list[Entry]:
        """The entries from `position` on that are still here, in order."""
        with self._told():
            rows = self._database.execute(
                "SELECT entries.*, answer FROM entries JOIN answers USING (series_id, observation_id)"
                " WHERE position >= ? ORDER BY position LIMIT ?",
                (position, limit),
            ).fetchall()
        return [
            Entry(
                position,
                series_id,
                offset,
                observation_id,
                time_of(at),
                value,
                json.loads(answer),
                time_of(ingested_at),
                None if lags is None else tuple(array("d", lags)),
            )
            for position, series_id, offset, observation_id, at, ingested_at, value, lags, answer in rows
        ]

    def forget(self, position: int) -> None:
        """Removes the entries below `position`, which the table has now; their answers stay."""
        with self._told(), self._transaction() as database:
            database.execute("DELETE FROM entries WHERE position < ?", (position,))
            database.execute("UPDATE journal SET forgotten = max(?, forgotten)", (position,))
        self._forgotten = max(position, self._forgotten)

    def restore(self, next_position: int, answers: Sequence[tuple[str, str, dict[str, Any]]]) -> None:
        """Fills a journal that is new (its disk was lost) with what the table knows.

        Args:
            next_position: how far the table's log has come.
            answers: series_id, observation_id and answer of each observation in the table.
        """
        with self._told(), self._transaction() as database:
            database.executemany(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?)",
                [(series_id, name, json.dumps(answer)) for series_id, name, answer in answers],
            )
            database.execute("UPDATE journal SET forgotten = ?", (next_position,))
        self._next_position = self._forgotten = next_position
