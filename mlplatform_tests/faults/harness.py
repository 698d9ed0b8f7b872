"""Runs a graph in a child process that dies where or when it is told to, and reads what is left.

Children are forked by a server process that has imported everything and opened nothing: a fork of
the test's own process would inherit the locks of client threads that it does not have.
"""

from __future__ import annotations

import multiprocessing
import signal
from dataclasses import dataclass
from multiprocessing.connection import Connection

from mlplatform.domain.model import ModelSet
from mlplatform.io.observation_log import LOG, source_stream
from mlplatform.io.states import FORMAT, versions_of
from mlplatform_tests.faults.boundaries import FaultPoints
from mlplatform_tests.faults.canonical import canonical
from mlplatform_tests.graphs import Graph, failure_message

KILLED = -signal.SIGKILL

processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload(["mlplatform_tests.faults.warm"])


@dataclass(frozen=True)
class Outcome:
    """How a child ended: its exit code (negative: a signal), and the fault points that it passed."""

    exit_code: int | None
    passed: tuple[str, ...]

    @property
    def killed(self) -> bool:
        return self.exit_code == KILLED


def run_in_child(
    graph: Graph,
    *,
    limit: int | None = None,
    runs: int | None = 1,
    kill_before: str | None = None,
    kill_after: str | None = None,
    kill_after_seconds: float | None = None,
) -> Outcome:
    """Lets a child process run the graph.

    Args:
        limit: submissions a run takes.
        runs: how many runs, one after another; None: until nothing waits.
        kill_before, kill_after: a fault point at which the child kills itself.
        kill_after_seconds: when this process kills it, wherever it is.
    """
    reader, writer = processes.Pipe(duplex=False)
    points = FaultPoints(kill_before, kill_after)
    child = processes.Process(target=_run, args=(graph, limit, runs, points, writer))
    child.start()
    writer.close()
    if kill_after_seconds is not None:
        child.join(kill_after_seconds)
        child.kill()
    try:
        passed = reader.recv()
    except EOFError:
        passed = ()
    child.join()
    return Outcome(child.exitcode, tuple(passed))


def _run(graph: Graph, limit: int | None, runs: int | None, points: FaultPoints, writer: Connection) -> None:
    points.install()
    done = 0
    while runs is None or done < runs:
        result = graph.run(limit)
        done += 1
        if not result.success:
            raise RuntimeError(failure_message(result))
        if runs is None and not waiting(graph):
            break
    writer.send(points.passed)


def waiting(graph: Graph) -> bool:
    """Whether any source has more than the log has taken."""
    stores, names = graph.stores, list(graph.graph.active)
    heads = stores.table(LOG.name).heads(*(source_stream(name, 0) for name in names))
    return any(
        graph.graph.sources[name](stores.objects).available(after) > after
        for name, after in zip(names, heads, strict=True)
    )


def what_is_left(graph: Graph) -> dict[str, object]:
    """Everything that runs leave, equal for equal contents; without the times of writing."""
    stores = graph.stores
    left: dict[str, object] = {}
    for name in ("observations", "quarantine", "lag_features", "predictions"):
        rows = stores.table(name).read().to_pylist()
        for row in rows:
            row.pop("ingested_at", None)
            row.pop("refused_at", None)
        left[name] = sorted((canonical(row) for row in rows), key=repr)
    for name, recipes in graph.graph.steps.items():
        empty = ModelSet(recipes, graph.graph.families)
        state = stores.states.load(name, 0, versions_of(recipes, graph.graph.families), empty)
        left[f"state of {name}"] = (state.position, canonical(state.content.models))
    families = {"format": FORMAT, "families": graph.graph.families.version}
    tails = stores.states.load("lag_features", 0, families, {})
    left["tails"] = (tails.position, canonical({key: repr(tail) for key, tail in tails.content.items()}))
    for kind in ("metrics", "forecasts", "champion"):
        left[kind] = [canonical(frame.to_pylist()) for frame in stores.frames.under(kind)]
    return left


def differences(one: dict[str, object], other: dict[str, object]) -> list[str]:
    """The parts in which two outcomes differ."""
    return [part for part in one if one[part] != other.get(part)]
