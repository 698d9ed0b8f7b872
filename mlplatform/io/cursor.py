"""How far a replay has been handed out, on this machine's disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.local_database import LocalDatabase

# So many answers are given again when they are asked for with the key that they were given for.
KEPT_ANSWERS = 1000


class CursorInUse(PlatformError):
    """Another process has the cursor open."""


class CursorUnavailable(TransientError):
    """The cursor cannot be read or moved; it is where it was."""


class Cursor(LocalDatabase):
    """The position in one source. A database that knew another source begins this one at its beginning.

    Args:
        source: names what is handed out.
        first: position of the first observation to be handed out; once a source is known, what it was then,
            so that a file that grows does not renumber what was handed out.

    Raises:
        CursorInUse: another process has it.
        CursorUnavailable: it cannot be opened, or is none of this version.
    """

    name = "cursor"
    format = 1
    schema = """
    CREATE TABLE cursors (
        source TEXT PRIMARY KEY,
        first INTEGER NOT NULL,
        position INTEGER NOT NULL
    ) WITHOUT ROWID;
    CREATE TABLE answers (number INTEGER PRIMARY KEY, key TEXT UNIQUE NOT NULL, answer TEXT NOT NULL);
    """
    other_format = (
        "{path} has format {found}, and this mlplatform knows {known}: start the version that wrote it, or"
        " remove it to begin anew"
    )
    in_use = CursorInUse
    unavailable = CursorUnavailable

    def __init__(self, path: Path, source: str, first: int) -> None:
        super().__init__(path)
        self._source = source
        with self._told(), self._transaction() as database:
            database.execute("INSERT OR IGNORE INTO cursors VALUES (?, ?, ?)", (source, first, first - 1))
            self.first: int = self._read("first")

    @property
    def position(self) -> int:
        """Position of what was handed out last; `first - 1` before anything was."""
        with self._told():
            return self._read("position")

    def advance(
        self, key: str | None, answer: Callable[[int], dict[str, Any] | None]
    ) -> dict[str, Any] | None:
        """Hands out the next observation, or again the one that was handed out for this key.

        Args:
            answer: of a position, what the client is told; None at the end, where nothing moves.

        Returns:
            The answer, when it is on the disk.
        """
        with self._told(), self._transaction():
            if known := self._answered(key):
                return known
            position = self._read("position") + 1
            if (told := answer(position)) is None:
                return None
            self._move(position)
            self._keep(key, told)
            return told

    def answered(self, key: str | None) -> dict[str, Any] | None:
        """What was told for this key."""
        with self._told():
            return self._answered(key)

    def keep(self, key: str, answer: dict[str, Any]) -> dict[str, Any]:
        """Keeps an answer that moves nothing; returns the first one that was kept for the key."""
        with self._told(), self._transaction():
            if known := self._answered(key):
                return known
            self._keep(key, answer)
            return answer

    def reset(self, key: str | None, answer: dict[str, Any]) -> dict[str, Any]:
        """Back to the beginning, once for a key. Keys that were answered stay so."""
        with self._told(), self._transaction():
            if known := self._answered(key):
                return known
            self._move(self.first - 1)
            self._keep(key, answer)
            return answer

    def _read(self, column: str) -> int:
        query = f"SELECT {column} FROM cursors WHERE source = ?"  # noqa: S608 - our own words
        return self._database.execute(query, (self._source,)).fetchone()[0]

    def _move(self, position: int) -> None:
        self._database.execute("UPDATE cursors SET position = ? WHERE source = ?", (position, self._source))

    def _answered(self, key: str | None) -> dict[str, Any] | None:
        row = self._database.execute("SELECT answer FROM answers WHERE key = ?", (key,)).fetchone()
        return json.loads(row[0]) if row else None

    def _keep(self, key: str | None, answer: dict[str, Any]) -> None:
        if key is None:
            return
        kept = self._database.execute(
            "INSERT INTO answers (key, answer) VALUES (?, ?)", (key, json.dumps(answer))
        )
        oldest = (kept.lastrowid or 0) - KEPT_ANSWERS
        self._database.execute("DELETE FROM answers WHERE number <= ?", (oldest,))
