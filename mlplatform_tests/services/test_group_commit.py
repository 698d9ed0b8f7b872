"""Many requests share an fsync, none is answered before it, and all that it concerns hear of a failure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from mlplatform.io.journal import Entry, Journal, JournalUnavailable
from mlplatform.services.group_commit import GroupCommit
from mlplatform_tests.io.test_journal import entry

MANY = 500
SMALL, LARGE = 6, 100_000
SECONDS = 30


class SlowJournal(Journal):
    """Counts its appends, and begins none while it is held."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.sizes: list[int] = []
        self.began = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def append(self, entries: Sequence[Entry]) -> None:
        self.sizes.append(len(entries))
        self.began.set()
        self.free.wait(SECONDS)
        super().append(entries)

    def positions(self) -> list[int]:
        return [each.position for each in self.since(0)]

    def room(self, pages: int) -> None:
        self._database.execute(f"PRAGMA max_page_count = {pages}")


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[SlowJournal]:
    journal = SlowJournal(tmp_path / "journal.db")
    yield journal
    journal.close()


def run(story: Callable[[GroupCommit], Awaitable[None]], journal: Journal) -> None:
    async def told() -> None:
        await story(GroupCommit(journal, lambda entries, error: None))

    asyncio.run(told())


def start(commits: GroupCommit, entries: Sequence[Entry]) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(commits.commit(each)) for each in entries]


async def held(journal: SlowJournal, commits: GroupCommit) -> list[asyncio.Task[None]]:
    """The commit of entry 0, which has begun and does not end before the journal is freed."""
    journal.free.clear()
    first = start(commits, [entry(0)])
    await asyncio.to_thread(journal.began.wait)
    return first


async def outcomes(tasks: Sequence[asyncio.Task[None]]) -> list[Any]:
    return await asyncio.gather(*tasks, return_exceptions=True)


def test_what_comes_while_the_disk_is_busy_shares_one_append(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        tasks = await held(journal, commits)
        tasks += start(commits, [entry(position) for position in range(1, MANY)])
        await asyncio.sleep(0)
        assert commits.waiting == MANY - 1
        journal.free.set()
        assert await outcomes(tasks) == [None] * MANY
        assert commits.waiting == 0

    run(story, journal)
    assert journal.sizes == [1, MANY - 1]
    assert journal.positions() == list(range(MANY))


def test_nothing_is_done_before_it_is_in_the_journal(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        [first] = await held(journal, commits)
        [second] = start(commits, [entry(1)])
        await asyncio.wait([first, second], timeout=0.05)
        assert (first.done(), second.done(), journal.positions()) == (False, False, [])
        journal.free.set()
        await first
        # The next append may have begun already, and have ended.
        assert journal.positions()[:1] == [0]
        await second
        assert journal.positions() == [0, 1]

    run(story, journal)


def test_the_order_is_that_of_the_commits(journal: SlowJournal) -> None:
    entries = [entry(position, "ab"[position % 2], offset=position // 2) for position in range(MANY)]

    async def story(commits: GroupCommit) -> None:
        tasks: list[asyncio.Task[None]] = []
        for at in range(0, MANY, 7):
            tasks += start(commits, entries[at : at + 7])
            # Some are written already, while others come.
            await asyncio.sleep(0.0005)
        assert await outcomes(tasks) == [None] * MANY

    run(story, journal)
    assert journal.since(0) == entries
    assert 1 < len(journal.sizes) < MANY


def test_one_client_after_another_waits_for_no_group(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        for position in range(10):
            await commits.commit(entry(position))
            assert journal.next_position == position + 1

    run(story, journal)
    assert journal.sizes == [1] * 10


def test_an_append_that_fails_is_told_to_all_that_wait(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        tasks = await held(journal, commits)
        tasks += start(commits, [entry(1, observation_id="x" * LARGE), entry(2)])
        await asyncio.sleep(0)
        journal.room(SMALL)
        journal.free.set()
        first, *others = await outcomes(tasks)
        assert first is None
        assert [type(each) for each in others] == [JournalUnavailable] * 2
        assert "full" in str(others[0])
        # And later ones work again.
        journal.room(LARGE)
        await commits.commit(entry(1))
        await commits.commit(entry(2))

    run(story, journal)
    assert journal.positions() == [0, 1, 2]


def test_what_waits_behind_a_failed_append_fails_with_it(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        journal.room(SMALL)
        journal.free.clear()
        failing = start(commits, [entry(0, observation_id="x" * LARGE)])
        await asyncio.to_thread(journal.began.wait)
        # Its position follows on one that the journal will not have.
        behind = start(commits, [entry(1), entry(2)])
        await asyncio.sleep(0)
        journal.free.set()
        assert [type(each) for each in await outcomes(failing + behind)] == [JournalUnavailable] * 3
        assert commits.waiting == 0
        journal.room(LARGE)
        await commits.commit(entry(0))

    run(story, journal)
    assert journal.sizes == [1, 1]
    assert journal.positions() == [0]


def test_an_entry_out_of_order_is_an_error_and_spoils_nothing(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        with pytest.raises(ValueError, match="at position 0"):
            await commits.commit(entry(7))
        await commits.commit(entry(0))

    run(story, journal)
    assert journal.positions() == [0]


def test_who_stops_waiting_leaves_the_others_and_what_was_said(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        tasks = await held(journal, commits)
        tasks += start(commits, [entry(1), entry(2)])
        await asyncio.sleep(0)
        tasks[0].cancel()
        tasks[1].cancel()
        journal.free.set()
        first, second, third = await outcomes(tasks)
        assert isinstance(first, asyncio.CancelledError)
        assert isinstance(second, asyncio.CancelledError)
        assert third is None

    run(story, journal)
    assert journal.positions() == [0, 1, 2]


def test_a_failure_for_which_nobody_waits_any_more_is_no_complaint_of_the_loop(journal: SlowJournal) -> None:
    complaints: list[dict[str, Any]] = []

    async def story(commits: GroupCommit) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
        journal.room(SMALL)
        journal.free.clear()
        [failing] = start(commits, [entry(0, observation_id="x" * LARGE)])
        await asyncio.to_thread(journal.began.wait)
        failing.cancel()
        journal.free.set()
        await commits.drain()
        journal.room(LARGE)
        await commits.commit(entry(0))

    run(story, journal)
    assert complaints == []
    assert journal.positions() == [0]


def test_drained_means_that_nothing_waits(journal: SlowJournal) -> None:
    async def story(commits: GroupCommit) -> None:
        await commits.drain()
        tasks = await held(journal, commits)
        tasks += start(commits, [entry(1)])
        draining = asyncio.create_task(commits.drain())
        await asyncio.wait([draining], timeout=0.05)
        assert not draining.done()
        journal.free.set()
        await draining
        assert journal.positions() == [0, 1]
        assert await outcomes(tasks) == [None, None]

    run(story, journal)
