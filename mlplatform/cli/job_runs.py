"""A run of a job in a process of its own: started, followed, and judged."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlplatform.cli.processes import with_parent

if TYPE_CHECKING:
    from dagster import DagsterEvent, DagsterInstance, DagsterRun

# What Dagster says of each step after one that failed.
NOT_RUN = "Dependencies for step"


def run_job(job: str, directory: Path, variables: Mapping[str, str]) -> list[str]:
    """Runs the job as `dagster job execute` and tells its progress; returns what went wrong.

    Its history is kept in `directory/dagster`, its log in `directory/<job>.log`.
    """
    import dagster as dg

    home = directory / "dagster"
    home.mkdir(parents=True, exist_ok=True)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\nnux:\n  enabled: false\n")
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", job]
    log = directory / f"{job}.log"
    with dg.DagsterInstance.from_config(str(home)) as instance, open(log, "wb") as output:
        with subprocess.Popen(  # noqa: S603
            with_parent(command, "SIGTERM"),
            env={**variables, "DAGSTER_HOME": str(home)},
            stdout=output,
            stderr=output,
        ) as process:
            run = _follow(instance, process, job)
        if run is None:
            return [f"The job did not start (exit code {process.returncode}):", log.read_text()[-2000:]]
        return _problems(instance, run)


def _follow(instance: DagsterInstance, process: subprocess.Popen[bytes], job: str) -> DagsterRun | None:
    """Prints what the run says as it says it, until its process ends."""
    from dagster import DagsterEventType, RunsFilter

    run, cursor, done, steps = None, None, 0, 0
    while True:
        ended = process.poll() is not None
        run = run or next(iter(instance.get_runs(RunsFilter(job_name=job), limit=1)), None)
        if run is not None:
            connection = instance.get_records_for_run(run.run_id, cursor)
            cursor = connection.cursor
            for entry in (record.event_log_entry for record in connection.records):
                event = entry.dagster_event
                if event is None:
                    if not entry.user_message.startswith(NOT_RUN):
                        click.echo(f"           {entry.user_message}")
                elif event.event_type == DagsterEventType.RUN_START:
                    snapshot = instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id or "")
                    steps = len(snapshot.steps)
                elif event.event_type == DagsterEventType.STEP_START:
                    click.echo(f"  [{done + 1:>2}/{steps}] {event.step_key}")
                elif event.event_type in (DagsterEventType.STEP_SUCCESS, DagsterEventType.STEP_FAILURE):
                    done += 1
        if ended:
            return run
        time.sleep(0.1)


def _problems(instance: DagsterInstance, run: DagsterRun) -> list[str]:
    """What keeps a run from being a success, each in a line."""
    import dagster as dg

    def events(kind: dg.DagsterEventType) -> list[dg.DagsterEvent]:
        records = instance.get_records_for_run(run.run_id, of_type=kind).records
        return [record.event_log_entry.get_dagster_event() for record in records]

    planned = {e.asset_key for e in events(dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED)}
    made = {e.asset_key for e in events(dg.DagsterEventType.ASSET_MATERIALIZATION)}
    missing = sorted(key.to_user_string() for key in planned - made if key)
    checks = [e.asset_check_evaluation_data for e in events(dg.DagsterEventType.ASSET_CHECK_EVALUATION)]
    failed = [
        f"{check.asset_key.to_user_string()}: {check.check_name}"
        for check in checks
        if check.blocking and not check.passed
    ]
    stored = instance.get_run_by_id(run.run_id)
    problems = []
    if stored is None or not stored.is_success:
        problems += [f"The run ended as {stored.status.value if stored else 'lost'}."]
        problems += [
            f"{event.step_key}: {reason(event)}" for event in events(dg.DagsterEventType.STEP_FAILURE)
        ]
    if missing:
        problems.append(f"Not materialised: {', '.join(missing)}.")
    if failed:
        problems.append(f"Blocking checks that failed: {', '.join(failed)}.")
    if not problems:
        warned = [f"{c.asset_key.to_user_string()}: {c.check_name}" for c in checks if not c.passed]
        passed = len(checks) - len(warned)
        click.echo(f"\n{len(made)} assets materialised, {passed} of {len(checks)} checks passed.")
        if warned:
            click.echo(f"Not passed, which stops nothing: {', '.join(warned)}.")
        click.echo()
    return problems


def reason(event: DagsterEvent) -> str:
    """The sentence that a step failed with; the trace only if nobody foresaw it."""
    data = event.step_failure_data
    if data.user_failure_data and data.user_failure_data.description:
        return data.user_failure_data.description
    error = data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return error.message.strip() if error else "unknown"
