"""Has Dagster show what was made over the API, as soon as it changes."""

from __future__ import annotations

import logging
from datetime import datetime
from uuid import UUID

from mlplatform.io.control_plane import declared
from mlplatform.io.control_plane.dagster_graphql import Dagster, DagsterRefused
from mlplatform.io.control_plane.database import Database

log = logging.getLogger(__name__)


class Reloader:
    """Loads the code location of the control plane anew, and sees that Dagster evaluates its schedules.

    A process that has just begun to lead knows nothing of what Dagster has seen, and reloads once.
    """

    def __init__(self, database: Database, dagster: Dagster) -> None:
        self._database = database
        self._dagster = dagster
        self._pipelines: dict[UUID, int] | None = None
        # Of each schedule that Dagster was told to evaluate, when it had changed last.
        self._evaluated: dict[str, datetime] = {}

    def round(self) -> None:
        """
        Raises:
            TransientError: Dagster or the database does not answer.
            DagsterRefused: the definitions cannot be loaded; Dagster goes on with those before.
        """
        with self._database.transaction() as connection:
            pipelines = {row["id"]: row["version"] for row in declared.pipelines(connection)}
            rows = declared.cron_schedules(connection)
        schedules = {row["slug"]: row["updated_at"] for row in rows if not row["paused"]}
        if (pipelines, schedules) == (self._pipelines, self._evaluated):
            return
        # Before it is gone: else Dagster's daemon would try once, and find nothing.
        for name in self._evaluated.keys() - schedules.keys():
            self._stop(name)
        if why := self._dagster.reload():
            raise DagsterRefused(f"the definitions cannot be loaded: {why}")
        log.info("Dagster shows %d pipelines and %d schedules", len(pipelines), len(schedules))
        for name in schedules.keys() - self._evaluated.keys():
            # The daemon looks at the location once a minute, and would miss what is due until then.
            self._dagster.start_schedule(name)
        self._pipelines, self._evaluated = pipelines, schedules

    def _stop(self, name: str) -> None:
        try:
            self._dagster.stop_schedule(name)
        except DagsterRefused as error:
            # It does not know it any more, which is what was wanted.
            log.info("schedule %s: %s", name, error)
