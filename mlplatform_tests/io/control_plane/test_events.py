from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

from sqlalchemy import text

from mlplatform.io.control_plane import events
from mlplatform.io.control_plane.database import Database, DatabaseRefused


def test_an_event_is_kept_with_what_it_tells_and_wakes_who_listens(database: Database) -> None:
    with database.listening(events.CHANNEL) as listening:
        with suppress(DatabaseRefused), database.transaction() as connection:
            events.write(connection, "job.running", {})
            connection.execute(text("SELECT 1 / 0"))
        with database.transaction() as connection:
            events.write(connection, "job.running", {"status": "Running"})
        assert len(list(listening.notifies(timeout=0.2))) == 1
    with database.transaction() as connection:
        (kept,) = events.after(connection, 0)
        assert (kept["type"], kept["data"], kept["sequence"]) == ("job.running", {"status": "Running"}, None)
        assert events.newest(connection) == kept["id"]
        assert events.after(connection, kept["id"]) == []


def test_whoever_writes_later_is_read_later_however_long_the_first_takes(database: Database) -> None:
    """A number that is taken first and kept last would be passed over by who reads in between."""
    written, told = threading.Event(), threading.Event()

    def slow() -> None:
        with database.transaction() as connection:
            events.write(connection, "slow", {})
            written.set()
            assert told.wait(10)

    def quick() -> None:
        with database.transaction() as connection:
            events.write(connection, "quick", {})

    waits = text(
        "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    )
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(slow)
        assert written.wait(10)
        second = pool.submit(quick)
        while True:
            with database.transaction() as connection:
                assert events.after(connection, 0) == []
                if connection.scalar(waits):
                    break
            assert not second.done(), "it did not wait"
            time.sleep(0.01)
        told.set()
        first.result()
        second.result()
    with database.transaction() as connection:
        assert [row["type"] for row in events.after(connection, 0)] == ["slow", "quick"]
