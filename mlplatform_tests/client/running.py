"""What workers do, as far as clients see it."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from mlplatform.domain.jobs.states import Reason, State
from mlplatform.io.control_plane import executions, log_lines
from mlplatform.io.control_plane.database import Database


class Run:
    """One execution, as a worker would run it."""

    def __init__(self, database: Database, job_id: uuid.UUID) -> None:
        self._database = database
        self._lines = 0
        with database.transaction() as connection:
            self.id = executions.release(connection, job_id, "command").id
            given = executions.schedule(connection, self.id, None)
            assert given
            self._lease = given.lease
            executions.start(connection, self.id, self._lease)

    def say(self, *lines: str) -> None:
        now = datetime.now(UTC)
        said = [log_lines.Line(self._lines + n, now, "stdout", line) for n, line in enumerate(lines)]
        self._lines += len(lines)
        with self._database.transaction() as connection:
            log_lines.append(connection, self.id, self._lease, said)

    def end(self, exit_code: int = 0) -> None:
        status = State.FAILED if exit_code else State.SUCCESS
        with self._database.transaction() as connection:
            reason, message = (Reason.EXIT_CODE, f"it ended with {exit_code}") if exit_code else (None, None)
            executions.finish(connection, self.id, self._lease, status, exit_code, reason, message)
