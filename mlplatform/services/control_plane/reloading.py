"""Has Dagster show what was made over the API, as soon as it changes."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import datetime
from uuid import UUID

from mlplatform.io.control_plane import declared
from mlplatform.io.control_plane.dagster_graphql import Dagster, DagsterRefused
from mlplatform.io.control_plane.database import Database

log = logging.getLogger(__name__)

SECONDS_BEFORE_AGAIN = 60


class Reloader:
    """Loads the code location of the control plane anew, and sees that Dagster evaluates its schedules.

    A process that has just begun to lead knows nothing of what Dagster has seen, and reloads once: also one
    that has led before.
    """

    def __init__(self, database: Database, dagster: Dagster) -> None:
        self._database = database
        self._dagster = dagster
        self._pipelines: dict[UUID, int] | None = None
        # Of each schedule that Dagster was told to evaluate, when it had changed last.
        self._evaluated: dict[str, datetime] = {}
        # What Dagster could not load, which it may when a process has started again.
        self._refused: tuple[dict[UUID, int], dict[str, datetime]] | None = None
        self._refusal: DagsterRefused | None = None
        self._again_at = 0.0

    def forget(self) -> None:
        """What another process has told Dagster meanwhile is not known here."""
        self._pipelines, self._evaluated, self._refusal = None, {}, None

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
        wanted = (pipelines, schedules)
        if wanted == (self._pipelines, self._evaluated):
            return
        if self._refusal and wanted == self._refused and time.monotonic() < self._again_at:
            raise self._refusal
        # Before it is gone: else Dagster's daemon would try once, and find nothing.
        for name in self._evaluated.keys() - schedules.keys():
            self._try(self._dagster.stop_schedule, name)
        if why := self._dagster.reload():
            self._refused, self._again_at = wanted, time.monotonic() + SECONDS_BEFORE_AGAIN
            self._refusal = DagsterRefused(f"the definitions cannot be loaded: {why}")
            raise self._refusal
        log.info("Dagster shows %d pipelines and %d schedules", len(pipelines), len(schedules))
        known = self._evaluated.keys()
        if self._pipelines is None:
            # Those that go on are left alone: what is due while one is begun anew may be missed.
            known = {schedule.name for schedule in self._dagster.schedules() if schedule.running}
        for name in schedules.keys() - known:
            # The daemon looks at the location once a minute, and would miss what is due until then.
            self._try(self._dagster.start_schedule, name)
        self._pipelines, self._evaluated, self._refusal = pipelines, schedules, None

    def _try(self, act: Callable[[str], None], name: str) -> None:
        try:
            act(name)
        except DagsterRefused as error:
            # It is not there (any more), as that of a pipeline that is wrong by now; the others are.
            log.warning("schedule %s: %s", name, error)
