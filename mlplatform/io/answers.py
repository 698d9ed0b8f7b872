"""Answers that a retry gets again, on this machine's disk."""

from __future__ import annotations

import json
from typing import Any

from mlplatform.io.local_database import LocalDatabase


class Answers(LocalDatabase):
    """A database that keeps, beside what a subclass adds, the answer to each observation of each series."""

    schema = """
    CREATE TABLE answers (
        series_id TEXT NOT NULL,
        observation_id TEXT NOT NULL,
        answer TEXT NOT NULL,
        PRIMARY KEY (series_id, observation_id)
    ) WITHOUT ROWID;
    """

    def answer(self, series_id: str, observation_id: str) -> dict[str, Any] | None:
        """What was answered for this observation; None if it is new."""
        with self._told():
            row = self._database.execute(
                "SELECT answer FROM answers WHERE series_id = ? AND observation_id = ?",
                (series_id, observation_id),
            ).fetchone()
        return json.loads(row[0]) if row else None
