"""What Prometheus is told of jobs and workers, looked up when it asks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from sqlalchemy import func, select

from mlplatform.domain.jobs.states import TERMINAL, State, WorkerState
from mlplatform.io.control_plane import events, tables, workers
from mlplatform.io.control_plane.database import Database
from mlplatform.services.control_plane.duties import Duty

_jobs, _executions = tables.jobs, tables.executions


class ControlPlaneCollector(Collector):
    """Of what there is now, which is little: what has ended is told by events.

    Args:
        duties: those of this process, which may be led by another.
    """

    def __init__(self, database: Database, duties: Sequence[Duty]) -> None:
        self._database = database
        self._duties = duties

    def collect(self) -> Iterable[Metric]:
        with self._database.transaction() as connection:
            jobs = dict(
                connection.execute(
                    select(_jobs.c.status, func.count())
                    .where(_jobs.c.status.not_in(TERMINAL))
                    .group_by(_jobs.c.status)
                ).all()
            )
            view = workers.view().subquery()
            there = dict(
                connection.execute(select(view.c.status, func.count()).group_by(view.c.status)).all()
            )
            waiting, since = connection.execute(
                select(
                    func.count(),
                    func.extract("epoch", func.clock_timestamp() - func.min(_executions.c.released_at)),
                ).where(_executions.c.status == State.PENDING, _executions.c.released_at.is_not(None))
            ).one()
            newest = events.newest(connection)
        yield _by("control_plane_jobs", "Jobs that have not ended", jobs, set(State) - TERMINAL)
        yield _by("control_plane_workers", "Workers", there, set(WorkerState))
        yield GaugeMetricFamily("control_plane_executions_waiting", "Executions without a worker", waiting)
        yield GaugeMetricFamily(
            "control_plane_longest_wait_seconds", "Of an execution without a worker", float(since or 0)
        )
        yield GaugeMetricFamily("control_plane_events", "Events that were ever kept", newest)
        troubled = GaugeMetricFamily(
            "control_plane_duty_troubled", "Whether what goes on in the background does not", labels=["duty"]
        )
        for duty in self._duties:
            troubled.add_metric([duty.name], float(duty.trouble is not None))
        yield troubled

    def describe(self) -> Iterable[Metric]:
        # Else it is asked when it is registered, before there are tables.
        return ()


def _by(name: str, text: str, counted: dict[str, int], statuses: set[State] | set[WorkerState]) -> Metric:
    family = GaugeMetricFamily(name, text, labels=["status"])
    for status in sorted(statuses):
        family.add_metric([status.value], counted.get(status.value, 0))
    return family
