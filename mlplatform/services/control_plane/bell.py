"""Wakes those who wait for something that another process may write."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager, suppress

from mlplatform.errors import TransientError
from mlplatform.io.control_plane import events, log_lines
from mlplatform.io.control_plane.database import Database

log = logging.getLogger(__name__)

SECONDS_TO_RECONNECT = 1.0
# A notification tells of everything; this is for what nobody is told of: that somebody may no more.
SECONDS_BETWEEN = 10.0


class Bell:
    """One connection that listens, for all streams of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self._ending = threading.Event()
        self._hears = False
        self.ending = asyncio.Event()
        self._thread = threading.Thread(target=self._listen, name="bell", daemon=True)
        self._thread.start()

    @contextmanager
    def heard(self, channel: str, payload: str = "") -> Iterator[AsyncIterator[None]]:
        """An iterator that goes on, at once for the first time, whenever there may be more to see.

        Args:
            payload: what it is about; empty: all of the channel.
        """
        rung = asyncio.Event()
        rung.set()
        key = (channel, payload)
        self._waiting[key].add(rung)
        try:
            yield self._rings(rung)
        finally:
            self._waiting[key].discard(rung)
            if not self._waiting[key]:
                del self._waiting[key]

    async def _rings(self, rung: asyncio.Event) -> AsyncIterator[None]:
        while not self.ending.is_set():
            with suppress(TimeoutError):
                await asyncio.wait_for(rung.wait(), SECONDS_BETWEEN if self._hears else SECONDS_TO_RECONNECT)
            if not self.ending.is_set():
                # Before it is looked: what comes while it is looked is looked for again.
                rung.clear()
                yield

    def stop(self) -> None:
        """Wakes everybody for the last time; on the loop."""
        self.ending.set()
        self._ending.set()
        self._ring_all()

    def _listen(self) -> None:
        prefix = len(self._database.channel(""))
        while not self._ending.is_set():
            try:
                with self._database.listening(events.CHANNEL, log_lines.CHANNEL) as connection:
                    self._hears = True
                    # What was told before is told by nobody again.
                    self._loop.call_soon_threadsafe(self._ring_all)
                    while not self._ending.is_set():
                        for notification in connection.notifies(timeout=1):
                            self._loop.call_soon_threadsafe(
                                self._ring, notification.channel[prefix:], notification.payload
                            )
            except TransientError as error:
                self._hears = False
                log.warning("streams look once a second: %s", error)
                self._ending.wait(SECONDS_TO_RECONNECT)
            except RuntimeError:
                # The loop is closed.
                return

    def _ring(self, channel: str, payload: str) -> None:
        for key in {(channel, payload), (channel, "")}:
            for rung in self._waiting.get(key, ()):
                rung.set()

    def _ring_all(self) -> None:
        for waiting in self._waiting.values():
            for rung in waiting:
                rung.set()
