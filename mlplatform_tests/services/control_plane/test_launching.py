from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from sqlalchemy import update

from mlplatform.domain.jobs.specs import JobSpec
from mlplatform.domain.jobs.states import State
from mlplatform.io.control_plane import jobs, tables
from mlplatform.io.control_plane.dagster_graphql import DagsterUnreachable
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.run_tags import JOB_TAG
from mlplatform.services.control_plane.launching import Launcher


class Dagster:
    """Loses its answer to the first launch; the real one is met in the faults and the end-to-end tests."""

    def __init__(self) -> None:
        self.launched: list[str] = []

    def launch(self, job: str, tags: Mapping[str, str], traceparent: str | None = None) -> str:
        self.launched.append(tags[JOB_TAG])
        if len(self.launched) == 1:
            raise DagsterUnreachable("no answer in time")
        return str(uuid.uuid4())

    def runs_of(self, job_ids: Sequence[str]) -> dict[str, list[Any]]:
        return {job_id: [] for job_id in job_ids}


@pytest.mark.parametrize("by_dagster", [False, True])
def test_what_dagster_may_be_about_to_run_itself_is_not_launched_again_at_once(
    database: Database, by_dagster: bool
) -> None:
    with database.transaction() as connection:
        job_id = jobs.create(connection, jobs.NewJob(spec=JobSpec(name="a", command=["true"])))["id"]
        connection.execute(update(tables.jobs).values(by_dagster=by_dagster))
    dagster: Any = Dagster()
    launcher = Launcher(database, dagster)
    with pytest.raises(DagsterUnreachable):
        launcher.round()
    launcher.round()
    assert len(dagster.launched) == (1 if by_dagster else 2)
    with database.transaction() as connection:
        assert jobs.get(connection, job_id)["status"] == (State.PENDING if by_dagster else State.SCHEDULED)
