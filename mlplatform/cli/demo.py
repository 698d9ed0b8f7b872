"""`mlplatform demo` and `mlplatform run`: the whole platform on this machine, for a look and to stay."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.results import show
from mlplatform.cli.stack import print_status
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.results import Frames
from mlplatform.local import launcher, ports, stack
from mlplatform.local.directory import acquire
from mlplatform.local.errors import StackError
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from dagster import DagsterInstance, DagsterRun

JOB = "online_learning"
PRIMED = "0.85"
DAGIT_PORT = 3000
# Beside the storage that dagster.yaml names.
RUN_LOCK = ".mlplatform/run.lock"
STOP_SECONDS = 15


@click.command()
def demo() -> None:
    """Materialise the online-learning graph over 744 months, and show what came of it.

    Starts the embedded stack in a fresh data directory (.mlplatform/demo), runs the job with its
    progress, prints the results and stops what it started. Exit code 0: every asset was materialised
    and every blocking check passed.

    \b
    Examples:
      mlplatform demo
      MLPLATFORM_SOURCES=employment_by_series mlplatform demo
    """
    directory = Settings.load().data_directory / "demo"
    began = time.monotonic()
    variables = {
        **os.environ,
        "MLPLATFORM_DATA_DIRECTORY": str(directory),
        "MLPLATFORM_S3_PREFIX": f"demo-{uuid.uuid4().hex[:8]}",
    }
    settings = Settings(variables)
    with readable_errors(), _alone(directory.with_suffix(".lock"), "mlplatform demo"):
        if directory.exists():
            shutil.rmtree(directory)
        click.echo("Starting S3, Redis and PostgreSQL ...")
        with stack.running_stack(settings):
            click.echo(f"Running the job {JOB} in Dagster ...")
            problems = _run_job(directory, variables)
            show(Frames(ObjectStore(settings.s3)))
    for problem in problems:
        click.echo(problem, err=True)
    if problems:
        click.echo(f"The run's log: {directory / 'job.log'}", err=True)
        sys.exit(1)
    click.echo(f"Done in {time.monotonic() - began:.0f} s; everything that was started has stopped.")
    click.echo("Next: `make run` keeps it alive, with Dagit and one observation a minute.")


def _run_job(directory: Path, variables: Mapping[str, str]) -> list[str]:
    """Runs the job as `dagster job execute` and tells its progress; returns what went wrong."""
    import dagster as dg

    home = directory / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", "mlplatform.definitions", "-j", JOB]
    log = directory / "job.log"
    with dg.DagsterInstance.from_config(str(home)) as instance, open(log, "wb") as output:
        with subprocess.Popen(  # noqa: S603
            _with_parent(command, "SIGTERM"),
            env={**variables, "DAGSTER_HOME": str(home)},
            stdout=output,
            stderr=output,
        ) as process:
            run = _follow(instance, process)
        if run is None:
            return [f"The job did not start (exit code {process.returncode}):", log.read_text()[-2000:]]
        return _problems(instance, run)


def _follow(instance: DagsterInstance, process: subprocess.Popen[bytes]) -> DagsterRun | None:
    """Prints what the run says as it says it, until its process ends."""
    from dagster import DagsterEventType

    run, cursor, done, steps = None, None, 0, 0
    while True:
        ended = process.poll() is not None
        run = run or next(iter(instance.get_runs(limit=1)), None)
        if run is not None:
            connection = instance.get_records_for_run(run.run_id, cursor)
            cursor = connection.cursor
            for entry in (record.event_log_entry for record in connection.records):
                event = entry.dagster_event
                if event is None:
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
            str(event.step_failure_data.error_display_string)
            for event in events(dg.DagsterEventType.STEP_FAILURE)
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
            click.echo(f"Worth a look: {', '.join(warned)}.")
        click.echo()
    return problems


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of Dagit; else 3000 or a free one.")
def run(port: int | None) -> None:
    """Start the embedded stack and `dagster dev`, and stay until Ctrl-C.

    The replay gives most of its months at once and then one a minute, so that something happens.
    Must be run where workspace.yaml and dagster.yaml are.

    \b
    Examples:
      mlplatform run
      MLPLATFORM_SOURCES=bitcoin mlplatform run --port 3001
    """
    if not Path("workspace.yaml").exists():
        raise click.ClickException("no workspace.yaml here: run it from the root of the repository")
    if port is None:
        port = DAGIT_PORT if ports.is_free(DAGIT_PORT) else ports.choose(set())
    elif not ports.is_free(port):
        raise click.ClickException(f"port {port} is taken: give another one with --port")
    settings = Settings.load()
    with readable_errors(), _alone(Path(RUN_LOCK), "mlplatform run"), stack.running_stack(settings):
        log = settings.data_directory / "dagit.log"
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        command += ["-h", "127.0.0.1", "-p", str(port)]
        with open(log, "wb") as output:
            dagit = subprocess.Popen(  # noqa: S603
                _with_parent(command, "SIGTERM"),
                env={"MLPLATFORM_REPLAY_PRIMED": PRIMED, **os.environ},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        click.echo(f"{'dagit':<11} {f'http://127.0.0.1:{port}':<50} starting  ({log})")
        print_status(stack.status(settings))
        click.echo("The sensor poll_sources looks every minute. Ctrl-C stops everything.")
        code = _stay(dagit)
        if code:
            raise click.ClickException(f"dagster dev ended with exit code {code}; see {log}")


@contextmanager
def _alone(path: Path, command: str) -> Iterator[None]:
    """Holds the lock file `path`: a second demo would remove the first one's data, and a second
    `dagster dev` on one storage would tick every sensor twice.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(path, wait_seconds=0)
    except OSError as error:
        raise StackError(f"{path.absolute()} cannot be written ({error.strerror})") from error
    if lock is None:
        raise StackError(f"`{command}` runs here already: end it with Ctrl-C in its terminal")
    try:
        yield
    finally:
        os.close(lock)


def _stay(process: subprocess.Popen[bytes]) -> int:
    """Waits until the process ends or a signal asks for the end; then ends it and its children."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    while process.poll() is None and not asked.wait(0.5):
        continue
    for number in (signal.SIGINT, signal.SIGTERM):
        with suppress(subprocess.TimeoutExpired):
            process.send_signal(number)
            process.wait(STOP_SECONDS)
    # What its children did not end by themselves.
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    return 0 if asked.is_set() else process.wait()


def _with_parent(command: list[str], end: str) -> list[str]:
    """The command, which gets the signal `end` when this process dies, even by kill -9."""
    wrapper = [sys.executable, "-I", "-S", launcher.__file__, "--parent", str(os.getpid())]
    return [*wrapper, "--signal", end, "--", *command]
