from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import executions, jobs, log_lines
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.executions import LeaseLost
from mlplatform.io.control_plane.log_lines import Line

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_lines_are_kept_in_order_as_long_as_the_lease_is_held_and_wake_who_follows(
    database: Database,
) -> None:
    spec = JobSpec.model_validate({"name": "a", "command": ["true"]})
    with database.transaction() as connection:
        job_id = jobs.create(connection, jobs.NewJob(spec=spec))["id"]
        waiting = executions.release(connection, job_id, jobs.COMMAND)
        given = executions.schedule(connection, waiting.id, None)
        assert given is not None
        executions.start(connection, given.id, given.lease)

    lines = [Line(number, NOW, "stdout", f"line {number}") for number in range(5)]
    with database.listening(log_lines.CHANNEL) as listening:
        for some in (lines[:2], lines[2:]):
            with database.transaction() as connection:
                log_lines.append(connection, given.id, given.lease, some)
                # It could not be told whether they were kept.
                log_lines.append(connection, given.id, given.lease, some)
        heard = {each.payload for each in listening.notifies(timeout=0.2)}
    assert heard == {str(given.id)}
    with database.transaction() as connection:
        everything = log_lines.after(connection, given.id)
        assert [row["text"] for row in everything] == [line.text for line in lines]
        assert [row["number"] for row in log_lines.after(connection, given.id, 1, limit=2)] == [2, 3]

    with database.transaction() as connection:
        odd = Line(5, NOW, "stderr", "a\x00b\N{SNOWMAN}")
        log_lines.append(connection, given.id, given.lease, [odd])
        assert log_lines.after(connection, given.id, 4)[0]["text"] == "a\N{REPLACEMENT CHARACTER}b\N{SNOWMAN}"

    def late(lease: uuid.UUID) -> None:
        with pytest.raises(LeaseLost), database.transaction() as connection:
            log_lines.append(connection, given.id, lease, [Line(6, NOW, "stdout", "late")])

    late(uuid.uuid4())
    with database.transaction() as connection:
        executions.finish(connection, given.id, given.lease, State.SUCCESS, 0)
    late(given.lease)
    with database.transaction() as connection:
        assert len(log_lines.after(connection, given.id)) == 6
