"""Dagster's launcher of runs as local processes, which also sees when such a process is gone."""

from __future__ import annotations

import json
import os
from pathlib import Path

import dagster as dg
from dagster._core.launcher import CheckRunHealthResult, DefaultRunLauncher, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG


class WatchedRunLauncher(DefaultRunLauncher):
    """The code server tells when a run's process ends, unless it has died itself: then the run stays
    under way for Dagster, and keeps its place in the queue, until its longest time is over.

    Here run monitoring asks whether the process lives, if it was started on this machine.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        # A server with a socket is on this machine; of another one, processes cannot be looked at.
        here = "socket" in json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
        number = self._process_of(run) if here else None
        if number is None or _lives(number):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"The process {number} of the run is gone.")

    def _process_of(self, run: dg.DagsterRun) -> int | None:
        events = self._instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
        for event in events:
            details = event.dagster_event and event.dagster_event.engine_event_data
            if details and "pid" in details.metadata:
                return int(str(details.metadata["pid"].value))
        return None


def _lives(number: int) -> bool:
    """Whether it is a process that can be a run: after a reboot, others have the numbers."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        # Somebody else's.
        return False
    try:
        # Of a process that has ended, and nobody has asked about, this is empty.
        return b"multiprocessing" in Path(f"/proc/{number}/cmdline").read_bytes()
    except OSError:
        # There is no /proc here.
        return True
