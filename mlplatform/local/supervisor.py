"""The process that owns the servers: starts them, restarts what dies, ends them, and they die with it.

Run by `mlplatform.local.stack`, as `python -m mlplatform.local.supervisor`. It tells its starter how the
start went in one JSON line on standard output, and logs to standard error.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

from mlplatform.local import ports, process
from mlplatform.local.directory import FULL_BYTES, StackDirectory, acquire, read_json, write_private_json
from mlplatform.local.errors import StackError
from mlplatform.local.probes import PROBES, NotReady
from mlplatform.local.servers import SERVERS, Server

log = logging.getLogger("mlplatform.local.supervisor")

START_SECONDS = 60
LEAST_FREE_BYTES = 256 * 1024**2
# A disk that was full has room again.
ROOM_BYTES = 64 * 1024**2
TICK_SECONDS = 0.1
RESTARTS = 6
SHORTEST_PAUSE_SECONDS = 0.5
FORGIVEN_AFTER_SECONDS = 60
# Two stacks that start together can choose the same free port.
PORT_ATTEMPTS = 3


class Supervised:
    """One server and its process: `tick` moves it on from one state to the next, without waiting."""

    def __init__(self, server: Server, servers_lock: int) -> None:
        self.server = server
        self.ready = False
        self.ended = False  # the process has ended and a decision is due
        self.gave_up = False
        self._servers_lock = servers_lock
        self._restarts = 0
        self._started = time.monotonic()
        self._start_again_at: float | None = None
        self._problem = "not asked yet"
        server.folder.mkdir(mode=0o700, exist_ok=True)
        server.clean()
        first = server.initialise()
        self._initialising = first is not None
        self.process = self._launch(first or server.command())

    def _launch(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        self._started = time.monotonic()
        log.info("%s: starting %s", self.server.name, Path(command[0]).name)
        return process.launch(self.server, command, self._servers_lock)

    def tick(self) -> None:
        if self.gave_up:
            return
        if self._start_again_at is not None:
            if time.monotonic() >= self._start_again_at:
                self._start_again_at = None
                self.server.clean()
                self.process = self._launch(self.server.command())
        elif self.process.poll() is not None:
            self._after_end()
        elif not self.ready and not self._initialising:
            self._probe()

    def _probe(self) -> None:
        try:
            PROBES[self.server.name](self.server.settings())
            self.server.complete()
        except NotReady as error:
            self._problem = str(error)
        else:
            self.ready = True
            log.info("%s: ready after %.1f s", self.server.name, time.monotonic() - self._started)

    def _after_end(self) -> None:
        if self._initialising and self.process.returncode == 0:
            self._initialising = False
            self.server.initialised()
            self.process = self._launch(self.server.command())
            return
        self.ended = True
        self.ready = False

    def restart(self) -> None:
        """Start an ended server again, on the same port, later each time, and not for ever."""
        self.ended = False
        if time.monotonic() - self._started > FORGIVEN_AFTER_SECONDS:
            self._restarts = 0
        if self._restarts == RESTARTS:
            self.gave_up = True
            log.error(
                "%s: ended again (%s); given up after %d restarts, see %s",
                *(self.server.name, self._ending(), RESTARTS, self.server.log),
            )
            return
        delay = SHORTEST_PAUSE_SECONDS * 2 ** (self._restarts - 1) if self._restarts else 0.0
        self._restarts += 1
        self._start_again_at = time.monotonic() + delay
        log.warning("%s: ended (%s); starting again in %.1f s", self.server.name, self._ending(), delay)

    def after_full_disk(self) -> None:
        """Start again what ended for want of room, or does not write again by itself."""
        self._restarts = 0
        if self.gave_up:
            self.gave_up = False
            self._start_again_at = time.monotonic()
        elif self.server.stays_broken_after_full_disk and self.process.poll() is None:
            log.warning("%s: ending it, to start it again after a full disk", self.server.name)
            self.process.send_signal(self.server.stop_signal)

    def _ending(self) -> str:
        code = self.process.returncode
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    def failure(self) -> StackError:
        """Why it did not start, for the person who has to mend it."""
        what = f"ended with {self._ending()}" if self.ended else f"is not ready: {self._problem}"
        lines = "\n".join(f"  | {line}" for line in process.last_lines(self.server.log))
        return StackError(
            f"{self.server.name} {what}\n{lines}\n  log: {self.server.log}\n"
            f"  remedy: read the last lines above; if its data is beyond repair, "
            f"remove {self.server.folder} and start again"
        )


class Supervisor:
    """The stack of one data directory, while its lock is held."""

    def __init__(self, directory: StackDirectory, fixed_ports: Mapping[str, int | None], owner: int | None):
        self.directory = directory
        self.fixed_ports = fixed_ports
        self.owner = owner
        self.stopping = threading.Event()
        self.supervised: dict[str, Supervised] = {}
        self.configuration = read_json(directory.configuration_file)
        self.disk_was_full = False

    def run(self, started: Any) -> None:
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        servers_lock = acquire(self.directory.servers_lock, wait_seconds=15)
        if servers_lock is None:
            raise StackError(
                f"servers of an earlier start still use {self.directory.root}: end them and start again"
            )
        self.directory.stack_file.unlink(missing_ok=True)
        try:
            self._start(servers_lock)
            self._publish()
            started()
            while not self._over():
                for one in self.supervised.values():
                    one.tick()
                    if one.ended:
                        one.restart()
                self._watch_disk()
        finally:
            self.directory.stack_file.unlink(missing_ok=True)
            self._stop()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.stopping.set()

    def _over(self) -> bool:
        """Whether to end, after the pause between two rounds."""
        if self.owner is not None and os.getppid() != self.owner:
            log.info("the process that started the stack has ended")
            return True
        return self.stopping.wait(TICK_SECONDS)

    def _start(self, servers_lock: int) -> None:
        free = shutil.disk_usage(self.directory.root).free
        if free < LEAST_FREE_BYTES:
            raise StackError(
                f"only {free // 1024**2} MiB are free on the disk of {self.directory.data_directory}, and "
                f"the stack needs {LEAST_FREE_BYTES // 1024**2}: make room, or set MLPLATFORM_DATA_DIRECTORY "
                "to a folder on another disk"
            )
        attempts = dict.fromkeys(self.fixed_ports, 1)
        waiting = list(self.fixed_ports)
        deadline = time.monotonic() + START_SECONDS
        while waiting or not all(one.ready for one in self.supervised.values()):
            for name in [name for name in waiting if self._can_start(name)]:
                self.supervised[name] = Supervised(self._server(name), servers_lock)
                waiting.remove(name)
            if self._over():
                raise StackError("the start was interrupted")
            for name, one in self.supervised.items():
                one.tick()
                late = not one.ready and time.monotonic() > deadline
                if one.ended and attempts[name] < PORT_ATTEMPTS and self._lost_port(one.server):
                    log.warning("%s: its port was taken meanwhile; choosing another", name)
                    attempts[name] += 1
                    self.supervised[name] = Supervised(self._server(name), servers_lock)
                elif one.ended or late:
                    raise one.failure()

    def _can_start(self, name: str) -> bool:
        """Whether the servers that it uses are ready, those of them that this stack runs."""
        used = [other for other in SERVERS[name].uses if other in self.fixed_ports]
        return all(other in self.supervised and self.supervised[other].ready for other in used)

    def _watch_disk(self) -> None:
        free = shutil.disk_usage(self.directory.root).free
        if free < FULL_BYTES and not self.disk_was_full:
            log.error("the disk of %s is full: make room", self.directory.data_directory)
            self.disk_was_full = True
        elif free > ROOM_BYTES and self.disk_was_full:
            log.info("the disk of %s has room again", self.directory.data_directory)
            self.disk_was_full = False
            for one in self.supervised.values():
                one.after_full_disk()

    def _lost_port(self, server: Server) -> bool:
        inner = server.kept["inner_ports"].values()
        return not all(ports.is_free(port) for port in (server.port, *inner))

    def _server(self, name: str) -> Server:
        """The server with the ports and credentials of the last start where it had one."""
        kind = SERVERS[name]
        before: dict[str, Any] = self.configuration.get(name) or {**kind.new_credentials()}
        taken = {
            port
            for other, kept in self.configuration.items()
            if other != name
            for port in (kept["port"], *kept["inner_ports"].values())
        }
        port = self._port(name, before.get("port"), taken)
        inner = before.get("inner_ports")
        if inner is None or not all(kind.can_use(number) for number in inner.values()):
            inner = kind.new_inner_ports(taken | {port})
        kept = before | {"port": port, "inner_ports": inner}
        self.configuration[name] = kept
        write_private_json(self.directory.configuration_file, self.configuration)
        others = {other: self.supervised[other].server for other in kind.uses if other in self.supervised}
        return kind(self.directory.service(name), kept, others)

    def _port(self, name: str, before: int | None, taken: set[int]) -> int:
        fixed = self.fixed_ports[name]
        if fixed is not None:
            if not ports.is_free(fixed):
                raise StackError(
                    f"{name}: port {fixed} is taken by another process: end that, or name another port"
                )
            return fixed
        for port in (before, SERVERS[name].default_port):
            if port is not None and port not in taken and ports.is_free(port):
                return port
        return ports.choose(taken)

    def _publish(self) -> None:
        write_private_json(
            self.directory.stack_file,
            {
                "supervisor": os.getpid(),
                "services": {name: one.server.address() for name, one in self.supervised.items()},
            },
        )

    def _stop(self) -> None:
        log.info("stopping")
        running = [
            (one.server, one.process) for one in self.supervised.values() if one.process.poll() is None
        ]
        process.stop(running)
        for one in self.supervised.values():
            one.server.clean()
        log.info("stopped")


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("data_directory", type=Path)
    parser.add_argument("--owner", type=int, help="end when this process, which is the parent, has ended")
    parser.add_argument("--service", action="append", default=[], metavar="NAME[=PORT]")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")

    services: dict[str, int | None] = {}
    for service in options.service:
        name, _, port = service.partition("=")
        services[name] = int(port) if port else None

    directory = StackDirectory(options.data_directory)
    lock = acquire(directory.supervisor_lock, wait_seconds=1)
    if lock is None:
        _report({"running": True})
        return 1
    os.pwrite(lock, f"{os.getpid():<10}".encode(), 0)
    try:
        Supervisor(directory, services, options.owner).run(lambda: _report({"ready": True}))
    except StackError as error:
        log.error("%s", error)
        _report({"error": str(error)})
        return 1
    except OSError as error:
        log.exception("unexpected")
        _report({"error": f"{error}; see {directory.supervisor_log}"})
        return 1
    return 0


def _report(message: Mapping[str, Any]) -> None:
    """Tell the starter, and let go of it: it may be gone, and must not wait for more."""
    try:
        print(json.dumps(message), flush=True)
    except BrokenPipeError:
        log.info("the process that started the stack no longer listens")
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, 1)


if __name__ == "__main__":
    sys.exit(main())
