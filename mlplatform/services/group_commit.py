"""Many requests, one fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

from mlplatform.io.journal import Entry, Journal


class GroupCommit:
    """Appends entries to a journal, as many at once as have come while the disk was busy.

    Belongs to the event loop on which it is made.

    Args:
        ended: is told of the entries of each append, and why it failed (None: they are on the disk), before
            who waits for them goes on; also of entries for which nobody waits any more.
    """

    def __init__(
        self,
        journal: Journal,
        ended: Callable[[Sequence[Entry], Exception | None], None],
    ) -> None:
        self._journal = journal
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        # The threads that all share may be busy with a store that is slow.
        self._disk = ThreadPoolExecutor(1, "journal")
        self._waiting: dict[asyncio.Future[None], Entry] = {}
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def waiting(self) -> int:
        """Entries that no commit has taken yet."""
        return len(self._waiting)

    async def commit(self, entry: Entry) -> None:
        """Returns when the entry is on the disk. Entries must come in the order of their positions.

        Raises:
            JournalUnavailable: it is not, nor is any entry that came later and waits.
        """
        done = self._loop.create_future()
        self._waiting[done] = entry
        if self._idle.is_set():
            self._write()
        await done

    async def drain(self) -> None:
        """Returns when nothing waits any more."""
        await self._idle.wait()

    def _write(self) -> None:
        taken, self._waiting = self._waiting, {}
        self._idle.clear()
        # Not the loop's run_in_executor, whose futures take longer than the way there and back.
        self._disk.submit(self._append, taken)

    def _append(self, taken: dict[asyncio.Future[None], Entry]) -> None:
        """In the thread."""
        error = None
        try:
            self._journal.append(list(taken.values()))
        except Exception as raised:
            error = raised
        self._loop.call_soon_threadsafe(self._written, taken, error)

    def _written(self, taken: dict[asyncio.Future[None], Entry], error: Exception | None) -> None:
        if error is not None:
            # What waits behind a failed entry has a position that the journal will not reach.
            taken, self._waiting = taken | self._waiting, {}
        try:
            self._ended(list(taken.values()), error)
        finally:
            # Whoever waits goes on, whatever becomes of the rest.
            self._answer(taken, error)
            if self._waiting:
                self._write()
            else:
                self._idle.set()

    def _answer(self, taken: dict[asyncio.Future[None], Entry], error: Exception | None) -> None:
        for done in taken:
            # Who has left is told no more.
            if done.cancelled():
                continue
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)
