"""Many requests, one fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from mlplatform.io.journal import Entry, Journal


class GroupCommit:
    """Appends entries to a journal, as many at once as have come while the disk was busy.

    Belongs to one event loop.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # The threads that all share may be busy with a store that is slow.
        self._disk = ThreadPoolExecutor(1, "journal")
        self._waiting: list[Entry] = []
        self._done: asyncio.Future[None] | None = None
        self._writer: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Entries that no commit has taken yet."""
        return len(self._waiting)

    async def commit(self, entry: Entry) -> None:
        """Returns when the entry is on the disk. Entries must come in the order of their positions.

        Raises:
            JournalUnavailable: it is not, nor is any entry that came later and waits.
        """
        if self._done is None:
            self._done = asyncio.get_running_loop().create_future()
        self._waiting.append(entry)
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        # Who leaves does not take the others' commit along.
        await asyncio.shield(self._done)

    async def drain(self) -> None:
        """Returns when nothing waits any more."""
        while self._writer is not None:
            await asyncio.wait([self._writer])

    async def _write(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                entries, done = self._take()
                try:
                    await loop.run_in_executor(self._disk, self._journal.append, entries)
                except BaseException as error:
                    self._fail(done, error)
                    return
                done.set_result(None)
        finally:
            self._writer = None

    def _take(self) -> tuple[Sequence[Entry], asyncio.Future[None]]:
        assert self._done is not None  # noqa: S101 - set before anything waits
        taken = self._waiting, self._done
        self._waiting, self._done = [], None
        return taken

    def _fail(self, done: asyncio.Future[None], error: BaseException) -> None:
        """What waits behind a failed entry has a position that the journal will not reach."""
        failed = [done]
        if self._done is not None:
            failed.append(self._done)
            self._waiting, self._done = [], None
        for each in failed:
            each.set_exception(error)
