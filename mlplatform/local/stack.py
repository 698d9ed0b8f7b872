"""Start, look at and stop the embedded stack of a data directory."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from mlplatform.local.directory import StackDirectory, read_json
from mlplatform.local.errors import StackError
from mlplatform.local.probes import problem
from mlplatform.local.servers import SERVERS
from mlplatform.settings import SERVICE_VARIABLES, Settings

# A start waits this long for another one that is under way.
OTHER_START_SECONDS = 75
STOP_SECONDS = 20
# Without it, the platform's other parts work.
OPTIONAL = frozenset({"mlflow"})


@dataclass(frozen=True)
class RunningStack:
    """A stack that was running when this was made."""

    data_directory: Path

    @property
    def variables(self) -> dict[str, str]:
        """The environment that points another process (or `Settings`) at this stack."""
        return {"MLPLATFORM_DATA_DIRECTORY": str(self.data_directory)}


@dataclass(frozen=True)
class Service:
    """One service as it is now; `embedded` is False if an environment variable names it."""

    name: str
    embedded: bool
    problem: str | None
    address: Mapping[str, str] = field(repr=False)
    data: Path | None
    log: Path | None
    # Somebody said that it shall be there: a variable that names it, or the installed package.
    wanted: bool = True

    @property
    def ready(self) -> bool:
        return self.problem is None


@dataclass(frozen=True)
class Status:
    data_directory: Path
    supervisor: int | None
    log: Path
    services: list[Service]

    @property
    def running(self) -> bool:
        return self.supervisor is not None

    @property
    def ready(self) -> bool:
        return all(service.ready for service in self.services if service.wanted)


def embedded_services(settings: Settings) -> list[str]:
    """The services that no environment variable names, which the stack therefore has to run.

    Only those that it may run, and not one whose optional package is missing.
    """
    if settings.environment != "local":
        return []
    return [
        name
        for name in settings.stack_services
        if not settings.variables.get(SERVICE_VARIABLES[name]) and not _left_out(name)
    ]


def _left_out(name: str) -> str | None:
    """Why the stack does without the service; None if it does not."""
    return SERVERS[name].not_installed() if name in OPTIONAL else None


def start(settings: Settings, ports: Mapping[str, int] | None = None) -> bool:
    """Start the stack, to outlive this process; False if it ran already. Returns when it is ready."""
    process = _spawn(settings, ports or {}, owned=False)
    if process is not None:
        # It is meant to outlive us; without this, its end as an object would warn.
        process.returncode = 0
    return process is not None


def stop(data_directory: Path) -> bool:
    """Stop the stack and wait until its last server has ended; False if none ran."""
    directory = StackDirectory(data_directory.absolute())
    supervisor = directory.supervisor()
    if supervisor is None:
        return False
    # Asked first; when it is killed, its servers die with it.
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.kill(supervisor, number)
        deadline = time.monotonic() + STOP_SECONDS
        while directory.supervisor() == supervisor or directory.servers_live():
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        else:
            return True
    raise StackError(f"the stack does not end, see {directory.supervisor_log} and the logs beside it")


def status(settings: Settings) -> Status:
    """Every service of the platform, probed now."""
    directory = StackDirectory(settings.data_directory)
    supervisor = directory.supervisor()
    embedded = embedded_services(settings)
    full = directory.full()
    addresses = read_json(directory.stack_file).get("services", {}) if supervisor else {}
    services = []
    for name, variable in SERVICE_VARIABLES.items():
        named = settings.variables.get(variable, "")
        if named or (settings.environment != "local" and name not in OPTIONAL):
            services.append(Service(name, False, problem(name, settings), {"url": named}, None, None))
            continue
        if name not in embedded:
            if settings.environment == "local" and name in settings.stack_services:
                services.append(Service(name, True, _left_out(name), {}, None, None, wanted=False))
            continue
        found = (full or problem(name, settings)) if supervisor else "not running"
        folder = directory.service(name)
        services.append(Service(name, True, found, addresses.get(name, {}), folder, folder / "server.log"))
    return Status(directory.data_directory, supervisor, directory.supervisor_log, services)


def check(settings: Settings) -> None:
    """Raise StackError if the stack does not run."""
    directory = StackDirectory(settings.data_directory)
    if directory.supervisor() is None:
        raise StackError(f"the stack has ended, see {directory.supervisor_log}")


@contextmanager
def running_stack(
    settings: Settings | None = None, ports: Mapping[str, int] | None = None
) -> Iterator[RunningStack]:
    """A running stack inside the `with` block, for these settings or those of the environment.

    One that runs already is used and left running. Else it is started, and stopped at the end, even if
    this process is killed.
    """
    settings = settings or Settings.load()
    process = _spawn(settings, ports or {}, owned=True)
    try:
        yield RunningStack(settings.data_directory)
    finally:
        if process is not None:
            stop(settings.data_directory)
            process.wait()


def _spawn(settings: Settings, ports: Mapping[str, int], owned: bool) -> subprocess.Popen[bytes] | None:
    """The supervisor, once the stack is ready; None if there is nothing to start."""
    services = embedded_services(settings)
    if not services:
        return None
    directory = StackDirectory(settings.data_directory)
    directory.create()
    if directory.supervisor() is not None:
        _wait_for_other(directory, services, ports)
        return None
    command = [sys.executable, "-m", "mlplatform.local.supervisor", str(settings.data_directory)]
    for name in services:
        command += ["--service", f"{name}={ports[name]}" if name in ports else name]
    if owned:
        command += ["--owner", str(os.getpid())]
    log = os.open(directory.supervisor_log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    listen, speak = os.pipe()
    try:
        process = subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=speak,
            stderr=log,
            # Ctrl-C in the terminal is for us; the supervisor is told by us, or finds us gone.
            start_new_session=True,
        )
    finally:
        os.close(log)
        os.close(speak)
    with open(listen) as reports:
        try:
            line = reports.readline()
        except BaseException:
            process.terminate()
            process.wait()
            raise
    report = json.loads(line) if line else {}
    if report.get("ready"):
        return process
    process.wait()
    if report.get("running"):
        _wait_for_other(directory, services, ports)
        return None
    raise StackError(
        report.get(
            "error", f"the supervisor ended before the servers were ready, see {directory.supervisor_log}"
        )
    )


def _wait_for_other(directory: StackDirectory, services: list[str], ports: Mapping[str, int]) -> None:
    """Wait until the stack that somebody else started is ready, and see that it is what we want."""
    deadline = time.monotonic() + OTHER_START_SECONDS
    while True:
        supervisor = directory.supervisor()
        if supervisor is None:
            raise StackError(f"another start of the stack failed, see {directory.supervisor_log}")
        published = read_json(directory.stack_file)
        # Until the new supervisor removes it, there may be the file of one that was killed.
        if published.get("supervisor") == supervisor:
            break
        if time.monotonic() > deadline:
            raise StackError(f"another start of the stack does not end, see {directory.supervisor_log}")
        time.sleep(0.05)
    remedy = "restart it with `mlplatform down` and `mlplatform up`"
    for name in services:
        if name not in published["services"]:
            raise StackError(f"the running stack has no {name}: {remedy}")
        if name in ports and urlsplit(published["services"][name]["url"]).port != ports[name]:
            raise StackError(f"the running stack has {name} at another port than {ports[name]}: {remedy}")
