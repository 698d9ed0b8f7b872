"""An H2O server of our own: on the loopback interface, behind a password, gone when we are."""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from mlplatform.io.h2o import guard
from mlplatform.io.h2o.java import jar, java
from mlplatform.io.plugins.frameworks import FrameworkError

START_SECONDS = 120
STOP_SECONDS = 10
# H2O logs a stack trace as one line.
LONGEST_LINE = 300
# XGBoost, and Java itself, need memory outside of the heap.
HEAP_SHARE = 0.65
LEAST_HEAP_BYTES = 256 * 1024**2
# H2O takes the first pair of free ports from here; one apart for each process, so that they do not race.
LOWEST_PORT, PORTS = 20_000, 10_000
USER = "mlplatform"


@dataclass(frozen=True)
class Server:
    """`url` holds the password; `ended` tells why it can no longer answer, None while it should."""

    url: str = field(repr=False)
    ended: Callable[[], str | None]


@contextmanager
def running_server(workdir: Path, cpus: int, memory_bytes: int) -> Iterator[Server]:
    """A server with a heap of about two thirds of `memory_bytes`, whose log is `workdir/h2o.log`.

    It ends with the block, or with this process. May be called from any thread.

    Raises:
        FrameworkError: it does not start; the message has the end of its log.
    """
    folder, log = workdir / "h2o", workdir / "h2o.log"
    (folder / "tmp").mkdir(parents=True)
    # Without one, any user of this machine could have H2O read and write files as us.
    password, login = secrets.token_urlsafe(24), folder / "login.properties"
    with open(os.open(login, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(f"{USER}: {password}\n")
    command = _command(folder, login, cpus, memory_bytes)
    wrapper = [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), str(folder)]
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*wrapper, *command],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for us, who then end it.
            start_new_session=True,
        )

    def ended() -> str | None:
        code = process.poll()
        if code is None:
            return None
        # Its guard tells of a signal as a shell does; the guard itself may have been killed too.
        number = -code if code < 0 else code - 128
        how = f"killed by {signal.Signals(number).name}" if number > 0 else f"with status {code}"
        return (
            f"the Java process of H2O ended ({how}). Give training more memory if the machine ran out of it. "
            f"Its last lines:\n{_last_lines(log)}"
        )

    try:
        address = _wait(folder / "address", log, ended)
        yield Server(f"http://{USER}:{password}@{address}", ended)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _command(folder: Path, login: Path, cpus: int, memory_bytes: int) -> Sequence[str]:
    heap = max(LEAST_HEAP_BYTES, int(memory_bytes * HEAP_SHARE))
    return [
        str(java()),
        f"-Xmx{heap // 1024**2}m",
        "-XX:+ExitOnOutOfMemoryError",
        # Nothing in /tmp.
        "-XX:-UsePerfData",
        f"-Djava.io.tmpdir={folder / 'tmp'}",
        *["-jar", str(jar())],
        *["-name", f"mlplatform-{secrets.token_hex(8)}"],
        *["-ip", "127.0.0.1", "-web_ip", "127.0.0.1"],
        *["-baseport", str(LOWEST_PORT + 2 * secrets.randbelow(PORTS // 2))],
        *["-notify_local", str(folder / "address")],
        *["-hash_login", "-login_conf", str(login)],
        *["-ice_root", str(folder / "ice"), "-flow_dir", str(folder / "flow")],
        *["-nthreads", str(cpus)],
        "-allow_unsupported_java",
    ]


def _wait(address: Path, log: Path, ended: Callable[[], str | None]) -> str:
    """`host:port`, once the server has told it."""
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        if why := ended():
            raise FrameworkError(f"H2O does not start: {why}")
        if address.exists() and (where := address.read_text().strip()):
            return where
        time.sleep(0.05)
    raise FrameworkError(f"H2O does not start in {START_SECONDS} s. Its last lines:\n{_last_lines(log)}")


def _last_lines(log: Path, count: int = 15) -> str:
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 20_000))
        lines = file.read().decode(errors="replace").splitlines()[-count:]
    return "\n".join(line[:LONGEST_LINE] for line in lines)
