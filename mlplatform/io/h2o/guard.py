"""Runs a command that ends with the process that wanted it, however that ended, and then removes its folder.

A script of its own, run as `python -I -S guard.py PID FOLDER COMMAND…`. The kernel can end a child with the
thread that made it, but a step's thread may end before its step: so this process makes the child, from
its only thread, and looks whether the process PID, its parent, still lives. Standard library only.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time

PR_SET_PDEATHSIG = 1
LOOK_SECONDS = 0.2


def main() -> int:
    parent, folder, *command = sys.argv[1:]
    prctl = ctypes.CDLL(None).prctl
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: sys.exit(0))
    child = subprocess.Popen(  # noqa: S603
        command,
        stdin=subprocess.DEVNULL,
        # For the case that this process is itself killed.
        preexec_fn=lambda: prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0),
    )
    try:
        while child.poll() is None and os.getppid() == int(parent):
            time.sleep(LOOK_SECONDS)
    finally:
        child.kill()
        child.wait()
        shutil.rmtree(folder)
    # As a shell tells it.
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


if __name__ == "__main__":
    sys.exit(main())
