"""The journal keeps what was appended, and nothing of what was not."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlplatform.io.journal import Entry, Journal, JournalUnavailable

TIME = datetime(2026, 3, 1, 12, 0, 0, 123456, UTC)


def entry(position: int, series_id: str = "s", **fields) -> Entry:
    return Entry(
        **{
            "position": position,
            "series_id": series_id,
            "offset": position,
            "observation_id": f"o{position}",
            "event_time": TIME,
            "value": 1.5 * position,
            "answer": {"prediction": position},
            "ingested_at": TIME + timedelta(seconds=1),
            **fields,
        }
    )


@pytest.fixture
def journal(tmp_path: Path):
    journal = Journal(tmp_path / "journal.db")
    yield journal
    journal.close()


def reopened(journal: Journal, tmp_path: Path) -> Journal:
    journal.close()
    return Journal(tmp_path / "journal.db")


def test_entries_are_there_after_a_restart(journal: Journal, tmp_path: Path) -> None:
    given = [entry(0, lags=(3.0, 0.1)), entry(1, "other")]
    journal.append(given)
    journal = reopened(journal, tmp_path)
    assert journal.since(0) == given
    assert (journal.next_position, journal.forgotten) == (2, 0)
    assert journal.answer("other", "o1") == {"prediction": 1}
    assert journal.answer("s", "o1") is None
    journal.close()


def test_what_is_forgotten_is_still_answered(journal: Journal, tmp_path: Path) -> None:
    journal.append([entry(0), entry(1), entry(2)])
    journal.forget(2)
    journal = reopened(journal, tmp_path)
    assert [each.position for each in journal.since(0)] == [2]
    assert (journal.next_position, journal.forgotten) == (3, 2)
    assert journal.answer("s", "o0") == {"prediction": 0}
    journal.append([entry(3)])
    journal.close()


@pytest.mark.parametrize(
    "entries", [[entry(1)], [entry(0), entry(2)], [entry(0), entry(1, observation_id="o0")]]
)
def test_all_or_none(journal: Journal, entries: list[Entry]) -> None:
    with pytest.raises(ValueError, match="journal"):
        journal.append(entries)
    assert (journal.since(0), journal.next_position) == ([], 0)
    assert journal.answer("s", "o0") is None
    journal.append([entry(0)])


def test_a_lost_disk_is_filled_from_the_table(journal: Journal) -> None:
    journal.restore(5, [("s", "o4", {"prediction": 4})])
    assert (journal.next_position, journal.forgotten) == (5, 5)
    assert journal.answer("s", "o4") == {"prediction": 4}
    journal.append([entry(5)])


def test_one_process_has_it(journal: Journal, tmp_path: Path) -> None:
    code = (
        "from pathlib import Path; from mlplatform.io.journal import Journal, JournalInUse\n"
        f"try: Journal(Path({str(tmp_path / 'journal.db')!r}))\n"
        "except JournalInUse as error: print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "is in use by another process" in ended.stdout


def test_a_torn_end_is_as_if_it_was_never_written(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path; from mlplatform.io.journal import Journal\n"
        "from mlplatform_tests.io.test_journal import entry\n"
        f"journal = Journal(Path({str(tmp_path / 'journal.db')!r}))\n"
        "for position in range(50): journal.append([entry(position)]); print(position, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert ended.returncode == -signal.SIGKILL
    said = len(ended.stdout.split())
    log = tmp_path / "journal.db-wal"
    # Of the last append, only a part reached the disk.
    os.truncate(log, log.stat().st_size - 1000)
    journal = Journal(tmp_path / "journal.db")
    found = journal.since(0)
    assert said == 50
    assert [each.position for each in found] == list(range(49))
    assert journal.answer("s", "o49") is None
    journal.append([entry(49)])
    journal.close()


def test_no_journal(tmp_path: Path) -> None:
    (tmp_path / "journal.db").write_bytes(b"something else" * 1000)
    with pytest.raises(JournalUnavailable, match="cannot be used"):
        Journal(tmp_path / "journal.db")


def test_a_full_disk_takes_nothing(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "journal.db")
    journal.append([entry(0)])
    journal._database.execute("PRAGMA max_page_count = 6")
    with pytest.raises(JournalUnavailable, match="full"):
        journal.append([entry(1, observation_id="x" * 100_000)])
    assert [each.position for each in journal.since(0)] == [0]
    journal._database.execute("PRAGMA max_page_count = 100000")
    journal.append([entry(1)])
    journal.close()


def test_a_journal_of_another_format_is_refused_and_not_kept_locked(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    Journal(path).close()
    for number in (9, Journal.format):
        database = sqlite3.connect(path)
        database.execute(f"PRAGMA user_version = {number}")
        database.close()
        if number == 9:
            with pytest.raises(JournalUnavailable, match=r"of format 9.*move the file away"):
                Journal(path)
    Journal(path).close()
