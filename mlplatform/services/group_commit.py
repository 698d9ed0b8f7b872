"""Many requests, one fsync."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from mlplatform.io.journal import Entry, Journal


class GroupCommit:
    """Appends entries to a journal, as many at once as have come while the disk was busy.

    Belongs to one event loop.

    Args:
        ended: is told of the entries of each append, and why it failed (None: they are on the disk), before
            who waits for them goes on; also of entries for which nobody waits any more.
    """

    def __init__(
        self,
        journal: Journal,
        ended: Callable[[Sequence[Entry], BaseException | None], None] = lambda entries, error: None,
    ) -> None:
        self._journal = journal
        self._ended = ended
        # The threads that all share may be busy with a store that is slow.
        self._disk = ThreadPoolExecutor(1, "journal")
        self._waiting: list[Entry] = []
        self._done: asyncio.Future[None] | None = None
        self._writing: asyncio.Future[None] | None = None

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
        done = self._done
        self._waiting.append(entry)
        if self._writing is None:
            self._write()
        # Who leaves does not take the others' commit along.
        await asyncio.shield(done)

    async def drain(self) -> None:
        """Returns when nothing waits any more."""
        while self._writing is not None:
            await asyncio.wait([self._writing])

    def _write(self) -> None:
        entries, done = self._take()
        loop = asyncio.get_running_loop()
        self._writing = loop.run_in_executor(self._disk, self._journal.append, entries)
        self._writing.add_done_callback(partial(self._written, entries, done))

    def _written(
        self, entries: Sequence[Entry], done: asyncio.Future[None], writing: asyncio.Future[None]
    ) -> None:
        self._writing = None
        if error := writing.exception():
            self._fail(entries, done, error)
            return
        self._ended(entries, None)
        done.set_result(None)
        if self._waiting:
            self._write()

    def _take(self) -> tuple[Sequence[Entry], asyncio.Future[None]]:
        assert self._done is not None  # noqa: S101 - set before anything waits
        taken = self._waiting, self._done
        self._waiting, self._done = [], None
        return taken

    def _fail(self, entries: Sequence[Entry], done: asyncio.Future[None], error: BaseException) -> None:
        """What waits behind a failed entry has a position that the journal will not reach."""
        failed = [(entries, done)]
        if self._done is not None:
            failed.append(self._take())
        for lost, waited_for in failed:
            self._ended(lost, error)
            waited_for.set_exception(error)
            # Looked at, lest the loop complains where nobody waits any more.
            waited_for.exception()
