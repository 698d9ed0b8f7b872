"""What was answered in the name of the champion, and how its contest stands, on this machine's disk."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from mlplatform.domain.champion import Change, Contest
from mlplatform.errors import PlatformError, TransientError
from mlplatform.io.answers import Answers

# What a contest chooses by. Its rolling metrics are not among it: the models have those themselves.
FIELDS = ("champion", "since_offset", "errors", "counts", "absent")


class ChampionJournalInUse(PlatformError):
    """Another process has the journal open."""


class ChampionJournalUnavailable(TransientError):
    """The journal cannot be read or written; nothing of what was to be kept is in it."""


@dataclass(frozen=True)
class Standing:
    """The contest of one series after all of its observations below `next_offset`."""

    contest: Contest
    next_offset: int


class ChampionJournal(Answers):
    """The contest of each series, and of every observation that counted in it the answer.

    Both are written at once, so that after a crash the same observation has the same answer, and counts once.
    The models' own journals could not tell: they know what each model said, not which of them was the
    champion at that moment, or whether the share of a challenger was another one then.

    Raises:
        ChampionJournalInUse: another process has it.
        ChampionJournalUnavailable: it cannot be opened, or is none of this version.
    """

    name = "journal of the champion"
    format = 1
    schema = """
    CREATE TABLE contests (
        number INTEGER PRIMARY KEY,
        series_id TEXT UNIQUE NOT NULL,
        next_offset INTEGER NOT NULL,
        contest TEXT NOT NULL
    );
    """
    other_format = (
        "{path} has format {found}, and this mlplatform knows {known}: start the version that wrote it, or"
        " remove it; then the champions are chosen anew, and what is given again may get another answer"
    )
    in_use = ChampionJournalInUse
    unavailable = ChampionJournalUnavailable

    def standing(self, series_id: str) -> Standing | None:
        """None of a series that is new."""
        with self._told():
            row = self._database.execute(
                "SELECT next_offset, contest FROM contests WHERE series_id = ?", (series_id,)
            ).fetchone()
        return Standing(_contest(row[1]), row[0]) if row else None

    def standings(self) -> dict[str, Standing]:
        """By series, in the order in which they were first seen."""
        with self._told():
            rows = self._database.execute(
                "SELECT series_id, next_offset, contest FROM contests ORDER BY number"
            ).fetchall()
        return {name: Standing(_contest(told), next_offset) for name, next_offset, told in rows}

    def append(self, answer: dict[str, Any], standing: Standing) -> None:
        """Keeps an answer and the standing after it, both or none; returns when they are on the disk.

        Args:
            answer: says its `series_id` and `observation_id`, which have none yet.

        Raises:
            ChampionJournalUnavailable: the disk is full or broken.
        """
        series_id = answer["series_id"]
        with self._told(), self._transaction() as database:
            database.execute(
                "INSERT INTO answers VALUES (?, ?, ?)",
                (series_id, answer["observation_id"], json.dumps(answer)),
            )
            database.execute(
                "INSERT INTO contests (series_id, next_offset, contest) VALUES (?, ?, ?)"
                " ON CONFLICT (series_id) DO UPDATE SET next_offset = excluded.next_offset,"
                " contest = excluded.contest",
                (series_id, standing.next_offset, _text(standing.contest)),
            )


def _text(contest: Contest) -> str:
    changes = [asdict(change) for change in contest.changes]
    return json.dumps({name: getattr(contest, name) for name in FIELDS} | {"changes": changes})


def _contest(text: str) -> Contest:
    told = json.loads(text)
    changes = tuple(Change(**change) for change in told.pop("changes"))
    return Contest(**told, changes=changes)
