"""What the tests ask the kernel, and the command line that they run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-c", "from mlplatform.cli.main import main; main()"]
# For tests that do without the slowest server.
S3_ELSEWHERE = {
    "MLPLATFORM_S3_ENDPOINT_URL": "http://127.0.0.1:9",
    "AWS_ACCESS_KEY_ID": "nobody",
    "AWS_SECRET_ACCESS_KEY": "nothing",
}
NAMED_ELSEWHERE = ("MLPLATFORM_", "AWS_", "MLFLOW_")
# All but MLflow, which takes longer to start than the others together.
FAST_SERVICES = {"MLPLATFORM_STACK_SERVICES": "s3,redis,postgresql"}


def environment(data_directory: Path, **variables: str) -> dict[str, str]:
    """This process's variables, without those that name services; a stack does without MLflow."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(NAMED_ELSEWHERE)}
    return kept | FAST_SERVICES | {"MLPLATFORM_DATA_DIRECTORY": str(data_directory)} | variables


def mlplatform(data_directory: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(data_directory, **variables),
        capture_output=True,
        text=True,
        timeout=60,
    )


def status(data_directory: Path, **variables: str) -> dict[str, Any]:
    return json.loads(mlplatform(data_directory, "status", "--json", **variables).stdout)


def _stat(pid: int) -> list[str]:
    """Fields of /proc/PID/stat from the state on, empty if there is no such process."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return []


def lives(pid: int) -> bool:
    return _stat(pid)[:1] not in ([], ["Z"], ["X"])


def descendants(pid: int) -> list[int]:
    """All processes below `pid`."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if fields := _stat(int(entry.name)):
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def program(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def eventually(holds: Callable[[], bool], seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def shown_by_ps(pid: int) -> str:
    """Command line and environment."""
    files = [Path(f"/proc/{pid}/{name}") for name in ("cmdline", "environ")]
    return "\n".join(file.read_bytes().decode(errors="replace") for file in files)
