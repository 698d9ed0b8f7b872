"""Takes servers of an embedded stack away while a graph runs, and gives them back."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from mlplatform.components.online_learning import champions, features, ingestion, models
from mlplatform.io.observation_log import LOG
from mlplatform.local.directory import StackDirectory
from mlplatform.local.probes import problem
from mlplatform.settings import Settings
from mlplatform_tests.faults.harness import processes
from mlplatform_tests.graphs import Graph, checks, failure_message
from mlplatform_tests.local.processes import descendants, eventually, program

# Where steps find the policy by which they are tried again.
STEPS = (ingestion, features, models, champions)
PROGRAMS = {"s3": "weed", "redis": "valkey-server"}
BACK_SECONDS = 60


@dataclass(frozen=True)
class Servers:
    """The servers of the stack in one data directory, which is ours alone."""

    variables: Mapping[str, str]

    @property
    def supervisor(self) -> int:
        pid = StackDirectory(Path(self.variables["MLPLATFORM_DATA_DIRECTORY"])).supervisor()
        assert pid is not None, "the stack has ended"
        return pid

    def kill(self, service: str) -> None:
        """SIGKILL; the supervisor starts it again."""
        own = [pid for pid in descendants(self.supervisor) if program(pid) == PROGRAMS[service]]
        for pid in own:
            os.kill(pid, signal.SIGKILL)
        assert own, f"{service} does not run"

    def wait_for(self, service: str, seconds: float = BACK_SECONDS) -> None:
        settings = Settings(self.variables)
        assert eventually(lambda: problem(service, settings) is None, seconds), f"{service} stays away"

    @contextmanager
    def without(self, service: str) -> Iterator[None]:
        """Killed, and not started again before the end of the block."""
        supervisor = self.supervisor
        os.kill(supervisor, signal.SIGSTOP)
        try:
            self.kill(service)
            yield
        finally:
            os.kill(supervisor, signal.SIGCONT)
            self.wait_for(service)


@dataclass(frozen=True)
class Told:
    """What a child says about its run."""

    success: bool
    failure: str
    checks: Mapping[str, bool]


def run_in_child_while(
    graph: Graph, limit: int | None, fault: Callable[[], None], after_seconds: float
) -> Told:
    """One run of the graph in a child process; `fault` happens while it runs."""
    reader, writer = processes.Pipe(duplex=False)
    child = processes.Process(target=_run, args=(graph, limit, writer))
    child.start()
    writer.close()
    timer = threading.Timer(after_seconds, fault)
    timer.start()
    try:
        told = reader.recv()
    finally:
        child.join()
        timer.join()
        reader.close()
    return told


def _run(graph: Graph, limit: int | None, writer: Connection) -> None:
    result = graph.run(limit)
    writer.send(Told(result.success, failure_message(result), checks(result)))


def offline(graph: Graph) -> dict[str, tuple[int, list[float]]]:
    """What the online store must hold: offset and newest values of each series, from the log alone."""
    rows = graph.stores.table(LOG.name).read(["series_id", "offset", "value"]).to_pylist()
    newest: dict[str, tuple[int, list[float]]] = {}
    for row in rows:
        values = newest.get(row["series_id"], (-1, []))[1]
        lags = graph.graph.families.of(row["series_id"]).lags
        newest[row["series_id"]] = (row["offset"], [row["value"], *values][:lags])
    return newest


def online(graph: Graph) -> dict[str, tuple[int, list[float]] | None]:
    store = graph.stores.online
    return {series_id: store.read(series_id) for series_id in offline(graph)}
