"""A server's process: started so that it dies with the supervisor, ended with patience, then without."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from signal import SIGKILL

from mlplatform.local import launcher
from mlplatform.local.servers import Server

LARGEST_LOG_BYTES = 10_000_000
STOP_SECONDS = 5


def launch(server: Server, command: Sequence[str], servers_lock: int) -> subprocess.Popen[bytes]:
    """Start `command` as `server`.

    Only from the main thread: the kernel ends the child together with the thread that made it.
    """
    wrapper = [sys.executable, "-I", "-S", launcher.__file__]
    wrapper += ["--parent", str(os.getpid()), "--signal", server.abort_signal.name]
    if not server.may_be_root:
        wrapper += ["--not-root", str(server.folder)]
    if server.log.exists() and server.log.stat().st_size > LARGEST_LOG_BYTES:
        server.log.replace(server.log.with_suffix(".log.old"))
    with open(os.open(server.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600), "ab") as log:
        return subprocess.Popen(  # noqa: S603
            [*wrapper, "--", *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=server.folder,
            env=server.environment,
            start_new_session=True,
            pass_fds=[servers_lock],
        )


def stop(running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> None:
    """End all of them: asked first, aborted after five seconds, killed after five more."""
    for server, process in running:
        process.send_signal(server.stop_signal)
    if _wait(running):
        return
    for server, process in running:
        process.send_signal(server.abort_signal)
    if _wait(running):
        return
    for _, process in running:
        process.send_signal(SIGKILL)
        process.wait()


def _wait(running: Sequence[tuple[Server, subprocess.Popen[bytes]]]) -> bool:
    deadline = time.monotonic() + STOP_SECONDS
    while any(process.poll() is None for _, process in running):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.02)
    return True


def last_lines(log: Path, count: int = 15) -> list[str]:
    """The end of a log file."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 20_000))
            return file.read().decode(errors="replace").splitlines()[-count:]
    except FileNotFoundError:
        return []
