"""Wakes those who wait for something that another process may write."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import defaultdict

from mlplatform.errors import TransientError
from mlplatform.io.control_plane import events, log_lines
from mlplatform.io.control_plane.database import Database

log = logging.getLogger(__name__)

SECONDS_TO_RECONNECT = 1.0


class Bell:
    """One connection that listens, for all streams of this process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._loop = asyncio.get_running_loop()
        self._waiting: dict[tuple[str, str], set[asyncio.Event]] = defaultdict(set)
        self._ending = threading.Event()
        self.ending = asyncio.Event()
        self._thread = threading.Thread(target=self._listen, name="bell", daemon=True)
        self._thread.start()

    async def wait(self, channel: str, payload: str = "", seconds: float = 1.0) -> None:
        """Until it rings, the bell is taken down, or the seconds are over: look again in any case."""
        rung = asyncio.Event()
        self._waiting[channel, payload].add(rung)
        if self.ending.is_set():
            rung.set()
        try:
            await asyncio.wait_for(rung.wait(), seconds)
        except TimeoutError:
            return
        finally:
            waiting = self._waiting[channel, payload]
            waiting.discard(rung)
            if not waiting:
                del self._waiting[channel, payload]

    def stop(self) -> None:
        """Wakes everybody for the last time; on the loop."""
        self.ending.set()
        self._ending.set()
        for waiting in self._waiting.values():
            for rung in waiting:
                rung.set()

    def _listen(self) -> None:
        prefix = len(self._database.channel(""))
        while not self._ending.is_set():
            try:
                with self._database.listening(events.CHANNEL, log_lines.CHANNEL) as connection:
                    while not self._ending.is_set():
                        for notification in connection.notifies(timeout=1):
                            self._loop.call_soon_threadsafe(
                                self._ring, notification.channel[prefix:], notification.payload
                            )
            except TransientError as error:
                log.warning("streams look once a second: %s", error)
                self._ending.wait(SECONDS_TO_RECONNECT)
            except RuntimeError:
                # The loop is closed.
                return

    def _ring(self, channel: str, payload: str) -> None:
        for key in {(channel, payload), (channel, "")}:
            for rung in self._waiting.get(key, ()):
                rung.set()
