"""`mlplatform dev`: the whole platform on this machine, to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
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
    """Start the embedded stack, `dagster dev` and the HTTP services, and stay until Ctrl-C.

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
        dagit_log, services_log = (settings.data_directory / f"{name}.log" for name in ("dagit", "services"))
        dagit = _started(
            [*("dagster", "dev", "-w", "workspace.yaml"), *("-h", "127.0.0.1", "-p", str(port))],
            dagit_log,
            MLPLATFORM_REPLAY_PRIMED=PRIMED,
        )
        services = _started(["mlplatform.cli", "serve", "all", "--any-port"], services_log)
        click.echo(f"{'dagit':<11} {f'http://127.0.0.1:{port}':<50} starting  ({dagit_log})")
        click.echo(f"{'services':<11} {'their ports are in their log':<50} starting  ({services_log})")
        print_status(stack.status(settings))
        click.echo("The sensor poll_sources looks every minute. Ctrl-C stops everything.")
        ended = _stay({"dagster dev": (dagit, dagit_log), "mlplatform serve all": (services, services_log)})
        if ended:
            raise click.ClickException(ended)


def _started(module: list[str], log: Path, **variables: str) -> subprocess.Popen[bytes]:
    with open(log, "wb") as output:
        return subprocess.Popen(  # noqa: S603
            with_parent([sys.executable, "-m", *module], "SIGTERM"),
            env={**variables, **os.environ},
            stdout=output,
            stderr=output,
            start_new_session=True,
        )


def _stay(processes: Mapping[str, tuple[subprocess.Popen[bytes], Path]]) -> str:
    """Waits until one ends or a signal asks for the end; then ends all with their children.

    Returns:
        Which one ended by itself; empty if none did.
    """
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(0.5) and all(process.poll() is None for process, _ in processes.values()):
        continue
    ended = [
        f"{name} ended with exit code {process.returncode}; see {log}"
        for name, (process, log) in processes.items()
        if process.poll() is not None
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        for process, _ in processes.values():
            process.send_signal(number)
        deadline = time.monotonic() + STOP_SECONDS
        for process, _ in processes.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))
    for process, _ in processes.values():
        # What its children did not end by themselves.
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return "" if asked.is_set() else "; ".join(ended)
