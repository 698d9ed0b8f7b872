"""`mlplatform dev`: the whole platform on this machine, to stay."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import click

from mlplatform.cli.errors import readable_errors
from mlplatform.cli.processes import alone, with_parent
from mlplatform.cli.serve import PORTS
from mlplatform.cli.stack import print_status
from mlplatform.local import ports, stack
from mlplatform.settings import Settings

PRIMED = "0.85"
DAGIT_PORT = 3000
# Beside the storage that dagster.yaml names.
RUN_LOCK = ".mlplatform/run.lock"
STOP_SECONDS = 15
# One that ends sooner, so often, will not stay.
SECONDS_TO_STAY = 30
MOST_RESTARTS = 3


@click.command()
@click.option("--port", type=click.IntRange(1, 65535), help="Port of Dagit; else 3000 or a free one.")
def dev(port: int | None) -> None:
    """Start the embedded stack, `dagster dev`, the HTTP services, the control plane and a worker; stay.

    The replay gives most of its months at once and then one a minute, so that something happens.
    Must be run where workspace.yaml and dagster.yaml are. Ctrl-C stops everything.

    \b
    Examples:
      mlplatform dev
      MLPLATFORM_SOURCES=bitcoin mlplatform dev --port 3001
    """
    if not Path("workspace.yaml").exists():
        raise click.ClickException("no workspace.yaml here: run it from the root of the repository")
    if port is None:
        port = _port(DAGIT_PORT)
    elif not ports.is_free(port):
        raise click.ClickException(f"port {port} is taken: give another one with --port")
    settings = Settings.load()
    with readable_errors(), alone(Path(RUN_LOCK), "mlplatform dev"), stack.running_stack(settings):
        _first_user(settings)
        dagit, api = f"http://127.0.0.1:{port}", _port(PORTS["api"])
        children = [
            _Child(
                "dagit",
                settings,
                [*("dagster", "dev", "-w", "workspace.yaml"), *("-h", "127.0.0.1", "-p", str(port))],
                dagit,
                MLPLATFORM_REPLAY_PRIMED=PRIMED,
            ),
            _Child("services", settings, ["mlplatform.cli", "serve", "all", "--any-port"]),
            _Child(
                "api",
                settings,
                ["mlplatform.cli", "serve", "api", "--port", str(api)],
                f"http://127.0.0.1:{api}/docs",
                MLPLATFORM_DAGIT_URL=dagit,
            ),
            _Child("worker", settings, ["mlplatform.cli", "worker", "start", "--name", "first"]),
        ]
        print_status(stack.status(settings))
        click.echo("The sensor poll_sources looks every minute. Ctrl-C stops everything.")
        if ended := _stay(children):
            raise click.ClickException(ended)


def _port(usual: int) -> int:
    return usual if ports.is_free(usual) else ports.choose(set())


def _first_user(settings: Settings) -> None:
    """Here, since what the control plane writes goes to a file, where no password belongs."""
    from mlplatform.io.control_plane.database import Database
    from mlplatform.services.control_plane.accounts import Accounts

    database = Database(settings.database_url, settings.control_plane_schema)
    database.migrate()
    Accounts(settings, database).prepare(click.echo)
    database.close()


class _Child:
    """A process that is started again when it ends, until it does so too often."""

    def __init__(
        self, name: str, settings: Settings, module: Sequence[str], where: str = "", **variables: str
    ) -> None:
        self.name = name
        self.log = settings.data_directory / f"{name}.log"
        self._module = module
        self._variables = variables
        self._restarts = 0
        self.process = self._start("wb")
        click.echo(f"{name:<11} {where or 'as its log says':<50} starting  ({self.log})")

    def _start(self, mode: str) -> subprocess.Popen[bytes]:
        self._began = time.monotonic()
        with open(self.log, mode) as output:
            return subprocess.Popen(  # noqa: S603
                with_parent([sys.executable, "-m", *self._module], "SIGTERM"),
                env={**self._variables, **os.environ},
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    def lives(self) -> bool:
        """Whether it does, or does again."""
        code = self.process.poll()
        if code is None:
            return True
        self._restarts = self._restarts + 1 if time.monotonic() - self._began < SECONDS_TO_STAY else 1
        if self._restarts > MOST_RESTARTS:
            return False
        self.kill()
        click.echo(f"{self.name} ended with exit code {code}, and is started again; see {self.log}", err=True)
        self.process = self._start("ab")
        return True

    def kill(self) -> None:
        """Ends what its children did not end by themselves."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _stay(children: Sequence[_Child]) -> str:
    """Waits until one ends for good or a signal asks for the end; then ends all with their children.

    Returns:
        Which one ended by itself; empty if none did.
    """
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda *_: asked.set())
    while not asked.wait(0.5) and all(child.lives() for child in children):
        continue
    ended = [
        f"{child.name} ended with exit code {child.process.returncode} again and again; see {child.log}"
        for child in children
        if child.process.poll() is not None
    ]
    for number in (signal.SIGINT, signal.SIGTERM):
        for child in children:
            child.process.send_signal(number)
        deadline = time.monotonic() + STOP_SECONDS
        for child in children:
            with suppress(subprocess.TimeoutExpired):
                child.process.wait(max(0, deadline - time.monotonic()))
    for child in children:
        child.kill()
    return "" if asked.is_set() else "; ".join(ended)
