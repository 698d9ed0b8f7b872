"""`mlplatform dev`: the whole platform on this machine, to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.processes import alone, with_parent
from mlplatform.cli.stack import print_status
from mlplatform.local import ports, stack
from mlplatform.settings import Settings

PRIMED = "0.85"
DAGIT_PORT = 3000
# Beside the storage that dagster.yaml names.
RUN_LOCK = ".mlplatform/run.lock"
STOP_SECONDS = 15


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of Dagit; else 3000 or a free one.")
def dev(port: int | None) -> None:
    """Start the embedded stack and `dagster dev`, and stay until Ctrl-C.

    The replay gives most of its months at once and then one a minute, so that something happens.
    Must be run where workspace.yaml and dagster.yaml are.

    \b
    Examples:
      mlplatform dev
      MLPLATFORM_SOURCES=bitcoin mlplatform dev --port 3001
    """
    if not Path("workspace.yaml").exists():
        raise click.ClickException("no workspace.yaml here: run it from the root of the repository")
    if port is None:
        port = DAGIT_PORT if ports.is_free(DAGIT_PORT) else ports.choose(set())
    elif not ports.is_free(port):
        raise click.ClickException(f"port {port} is taken: give another one with --port")
    settings = Settings.load()
    with readable_errors(), alone(Path(RUN_LOCK), "mlplatform dev"), stack.running_stack(settings):
        log = settings.data_directory / "dagit.log"
        command = [sys.executable, "-m", "dagster", "dev", "-w", "workspace.yaml"]
        command += ["-h", "127.0.0.1", "-p", str(port)]
        with open(log, "wb") as output:
            dagit = subprocess.Popen(  # noqa: S603
                with_parent(command, "SIGTERM"),
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
