"""The journal of the champion keeps an answer and what the contest is after it, both or none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mlplatform.domain.champion import Contest
from mlplatform.io.champion_journal import ChampionJournal, ChampionJournalUnavailable, Standing


def answer(observation_id: str, series_id: str = "s", **fields: Any) -> dict[str, Any]:
    return {"series_id": series_id, "observation_id": observation_id, "model": "a", **fields}


def contest(observations: int) -> Contest:
    """One with a title that has changed hands."""
    held = Contest()
    for offset in range(observations):
        said = {"a": 1.0 + offset / 1000, "b": 2.0} if offset < 40 else {"a": 9.0, "b": 0.1}
        held.learn(offset, 0.0, said, {"a", "b"})
    return held


def chooses_as(held: Contest) -> tuple[object, ...]:
    return held.champion, held.since_offset, held.errors, held.counts, held.absent, held.changes


def test_answers_and_contests_are_there_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "services" / "champion.db"
    journal = ChampionJournal(path)
    journal.append(answer("1", "second", prediction=0.1), Standing(Contest(), 1))
    journal.append(answer("1"), Standing(contest(99), 99))
    journal.append(answer("2", "second"), Standing(contest(30), 2))
    journal.close()
    journal = ChampionJournal(path)
    assert journal.answer("second", "1") == answer("1", "second", prediction=0.1)
    assert journal.answer("second", "3") is None
    assert journal.standing("third") is None
    found = journal.standings()
    # As they were first seen, whenever they were seen last.
    assert list(found) == ["second", "s"]
    assert (found["second"].next_offset, found["s"].next_offset) == (2, 99)
    assert len(contest(99).changes) > 1
    assert chooses_as(found["s"].contest) == chooses_as(contest(99))
    assert chooses_as(journal.standing("s").contest) == chooses_as(contest(99))
    journal.close()


def test_what_cannot_be_kept_leaves_no_trace(tmp_path: Path) -> None:
    journal = ChampionJournal(tmp_path / "champion.db")
    journal.append(answer("1"), Standing(Contest(), 1))
    (pages,) = journal._database.execute("PRAGMA page_count").fetchone()
    journal._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(ChampionJournalUnavailable, match="full"):
        journal.append(answer("2", note="x" * 100_000), Standing(Contest(), 2))
    assert journal.answer("s", "2") is None
    assert journal.standings()["s"].next_offset == 1
    journal._database.execute("PRAGMA max_page_count = 1000000")
    journal.append(answer("2"), Standing(Contest(), 2))
    assert journal.standings()["s"].next_offset == 2
    journal.close()
