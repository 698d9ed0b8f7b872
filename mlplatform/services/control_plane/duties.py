"""What goes on in the background, in one of the processes that serve one database: another takes over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence

import psycopg

from mlplatform.errors import PlatformError
from mlplatform.io.control_plane.database import Database

log = logging.getLogger(__name__)

# Notifications wake it at once; this finds what nobody tells of: silence, and time that has come.
SECONDS_BETWEEN = 1.0
LOOK_SECONDS = 0.5
SECONDS_BETWEEN_WORDS = 5.0
SECONDS_TO_GATHER = 0.05
# Before it looks again whether whoever leads is gone, or the database back.
SECONDS_TO_LEAD = 1.0


class Duty:
    """A thread that does its work again and again while it leads.

    Args:
        work: one round; may fail, and is tried again.
        channels: notifications that wake it.
        begin: what is done first whenever it begins to lead, since another may have led before.
        longest_round: seconds; after so long without a word another process leads.
    """

    def __init__(
        self,
        name: str,
        database: Database,
        work: Callable[[], object],
        channels: Sequence[str],
        seconds_between: float = SECONDS_BETWEEN,
        begin: Callable[[], object] = lambda: None,
        longest_round: float = 180,
    ) -> None:
        self.name = name
        self._database = database
        self._work = work
        self._channels = channels
        self._seconds_between = seconds_between
        self._begin = begin
        self._longest_round = longest_round
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        # Why it does not get on; None: it does, or another process leads.
        self.trouble: str | None = None

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Ends after the round that is being done."""
        self._ending.set()

    def join(self) -> None:
        self._thread.join()

    def _run(self) -> None:
        while not self._ending.is_set():
            try:
                leading = self._database.leading(
                    self.name, *self._channels, silent_seconds=self._longest_round
                )
                with leading as connection:
                    if connection is not None:
                        self._begin()
                        self._lead(connection)
                    else:
                        self._say(None)
            except PlatformError as error:
                self._say(str(error))
            except Exception:
                log.exception("%s failed, and goes on", self.name)
                self.trouble = "failed; the log says why"
            self._ending.wait(SECONDS_TO_LEAD)

    def _lead(self, connection: psycopg.Connection) -> None:
        while not self._ending.is_set():
            self._work()
            self._say(None)
            # Also shows whether the connection, and the lead with it, is still there.
            connection.execute("SELECT 1")
            self._wait(connection)

    def _wait(self, connection: psycopg.Connection) -> None:
        deadline = time.monotonic() + self._seconds_between
        asked = time.monotonic()
        while not self._ending.is_set() and (left := deadline - time.monotonic()) > 0:
            if time.monotonic() - asked > SECONDS_BETWEEN_WORDS:
                connection.execute("SELECT 1")
                asked = time.monotonic()
            # Not longer, so that whoever ends it waits for nothing.
            if list(connection.notifies(timeout=min(left, LOOK_SECONDS), stop_after=1)):
                # What comes meanwhile is seen to by the same round: a hundred of them are not so many rounds.
                self._ending.wait(SECONDS_TO_GATHER)
                list(connection.notifies(timeout=0))
                return

    def _say(self, trouble: str | None) -> None:
        if trouble and trouble != self.trouble:
            log.warning("%s does not get on: %s", self.name, trouble)
        elif self.trouble and not trouble:
            log.info("%s gets on again", self.name)
        self.trouble = trouble
