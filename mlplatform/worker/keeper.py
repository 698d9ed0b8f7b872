"""Runs one command and whatever it starts, and ends all of it when nobody holds it any more.

A script of its own, run with `python -I -S`: the worker may be killed or stopped at any moment, and what the
command has started by then must not run on beside the next attempt. Standard library only.

Its standard input is told, one JSON object a line: first what to run,
`{"command": […], "environment": {…}, "folder": "…", "until": …}`; then `{"until": …}` for as long as the
lease is held (seconds of CLOCK_BOOTTIME), and `{"end": seconds}` for SIGTERM now and SIGKILL later. At the
end of the input, which is that of the worker, and when `until` has passed, all is killed. It exits with the
command's exit code, or 128 and the number of the signal, as a shell does, once no process is left.
"""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import sys
import time
from contextlib import suppress
from typing import Any, NoReturn

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36
# A machine that slept wakes it late.
LONGEST_WAIT_SECONDS = 1.0
CONTROL = 0
# What Python, or this script, has changed of what a command begins with.
CHANGED = (signal.SIGCHLD, signal.SIGPIPE, signal.SIGXFSZ)

libc = ctypes.CDLL(None, use_errno=True)


def main() -> None:
    received, rest = b"", b""
    while b"\n" not in received:
        if not (more := os.read(CONTROL, 65536)):
            return
        received += more
    first, _, rest = received.partition(b"\n")
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # Orphans of the command become children of this process: none of them is missed.
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    asked = json.loads(first)
    keep(start(asked), asked["until"], rest, woken)


def keep(child: int, until: float, received: bytes, woken: int) -> NoReturn:
    watched = [CONTROL, woken]
    latest = float("inf")
    while (code := ended(child)) is None:
        *lines, received = received.split(b"\n")
        for line in lines:
            told: dict[str, Any] = json.loads(line)
            if "end" in told:
                with suppress(ProcessLookupError):
                    os.killpg(child, signal.SIGTERM)
                # No lease makes it longer.
                latest = now() + told["end"]
            until = min(told.get("until", until), latest)
        if (left := until - now()) <= 0:
            kill(child)
        ready, _, _ = select.select(watched, [], [], min(max(left, 0.01), LONGEST_WAIT_SECONDS))
        if woken in ready:
            os.read(woken, 65536)
        if CONTROL in ready:
            more = os.read(CONTROL, 65536)
            received += more
            if not more:
                until = 0.0
                watched.remove(CONTROL)
    kill(child)
    os._exit(code)


def start(asked: dict[str, Any]) -> int:
    """The command in a session and group of its own."""
    keeper = os.getpid()
    child = os.fork()
    if child:
        return child
    try:
        signal.set_wakeup_fd(-1)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, *CHANGED):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != keeper:  # it died before it was watched
            os._exit(1)
        # When memory runs out, it goes and not the worker.
        with suppress(OSError), open("/proc/self/oom_score_adj", "w") as file:
            file.write("500")
        os.dup2(os.open(os.devnull, os.O_RDONLY), CONTROL)
        os.chdir(asked["folder"])
        os.execvpe(asked["command"][0], asked["command"], asked["environment"])  # noqa: S606
    except OSError as error:
        print(f"{asked['command'][0]}: {error.strerror}", file=sys.stderr, flush=True)
        os._exit(127 if isinstance(error, FileNotFoundError) else 126)


def ended(child: int) -> int | None:
    """The exit code of the command if it has ended; whatever else has is forgotten."""
    code = None
    with suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG))[0]:
            if found[0] == child:
                code = os.waitstatus_to_exitcode(found[1])
    return code if code is None or code >= 0 else 128 - code


def kill(child: int) -> None:
    """Ends the command's group, then all that is left of it. The command itself is left for `ended`."""
    with suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)
    while others := [process for process in children() if process != child]:
        for process in others:
            # One that has become another user cannot be ended, and is waited for.
            with suppress(PermissionError):
                os.kill(process, signal.SIGKILL)
        for process in others:
            # What it had started becomes a child of this process.
            os.waitpid(process, 0)


def children() -> list[int]:
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with suppress(OSError):
                with open(f"/proc/{name}/stat", "rb") as file:
                    # After the name of the program, which may have anything in it: state and parent.
                    parent = file.read().rpartition(b")")[2].split()[1]
                if int(parent) == os.getpid():
                    found.append(int(name))
    return found


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


if __name__ == "__main__":
    main()
