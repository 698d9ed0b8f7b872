"""`dagster dev` in a home of its own, and what its instance says of the runs that a sensor asked for."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from mlplatform.local import launcher, ports

REPOSITORY = Path(__file__).parents[1]
START_SECONDS, STOP_SECONDS = 180, 20


@dataclass(frozen=True)
class TickedRun:
    """A run that a sensor asked for; seconds since its tick."""

    run_id: str
    created: float
    launched: float
    started: float
    ended: float

    def __str__(self) -> str:
        """Created by the sensor, launched by the queue, started in its process, ended."""
        moments = ("created", "launched", "started", "ended")
        return ", ".join(f"{moment} {getattr(self, moment):.1f}" for moment in moments) + " s"


def make_home(home: Path) -> Path:
    """A DAGSTER_HOME with the configuration of the repository."""
    home.mkdir(parents=True)
    configuration = (REPOSITORY / "dagster.yaml").read_text()
    (home / "dagster.yaml").write_text(configuration.replace(".mlplatform/dagster", str(home)))
    return home


@contextmanager
def running(home: Path, definitions: list[str], variables: Mapping[str, str]) -> Iterator[dg.DagsterInstance]:
    """`dagster dev` with its daemon, its web server and a code server, until the block ends."""
    command = [sys.executable, "-m", "dagster", "dev", *definitions]
    command += ["-h", "127.0.0.1", "-p", str(ports.choose(()))]
    # It ends with this process, even by kill -9.
    with_parent = [sys.executable, "-I", "-S", launcher.__file__, "--parent", str(os.getpid())]
    with open(home / "dev.log", "wb") as output:
        process = subprocess.Popen(
            [*with_parent, "--signal", "SIGTERM", "--", *command],
            env={**os.environ, **variables, "DAGSTER_HOME": str(home)},
            cwd=home,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        with dg.DagsterInstance.from_config(str(home)) as instance:
            yield instance
    finally:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def next_run(instance: dg.DagsterInstance, known: set[str]) -> TickedRun:
    """Waits until a run that is not known yet has succeeded."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        for record in instance.get_run_records():
            run = record.dagster_run
            if run.run_id in known or not run.is_finished:
                continue
            if not run.is_success:
                raise RuntimeError(f"run {run.run_id} ended as {run.status.value}")
            since = _tick_of(instance, run.run_id)
            return TickedRun(
                run.run_id,
                created=record.create_timestamp.timestamp() - since,
                launched=_time_of(instance, run.run_id, dg.DagsterEventType.RUN_STARTING) - since,
                started=(record.start_time or 0) - since,
                ended=(record.end_time or 0) - since,
            )
        time.sleep(1)
    raise TimeoutError(f"no run within {START_SECONDS} s")


def _tick_of(instance: dg.DagsterInstance, run_id: str) -> float:
    """When the sensor's tick began that asked for the run."""
    for state in instance.all_instigator_state():
        for tick in instance.get_ticks(state.instigator_origin_id, state.selector_id):
            if run_id in tick.run_ids:
                return tick.timestamp
    raise LookupError(f"no tick asked for run {run_id}")


def _time_of(instance: dg.DagsterInstance, run_id: str, kind: dg.DagsterEventType) -> float:
    (record,) = instance.get_records_for_run(run_id, of_type=kind).records
    return record.event_log_entry.timestamp
