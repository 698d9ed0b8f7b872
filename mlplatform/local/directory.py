"""Where a stack keeps its files, and the locks that say whether it runs."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlplatform.local.errors import StackError
from mlplatform.settings import STACK_FILE, STACK_LOCK, is_locked

# With less room than this, a server's next write may fail.
FULL_BYTES = 16 * 1024**2


@dataclass(frozen=True)
class StackDirectory:
    """The files of the stack of one data directory.

    A lock, unlike a process id in a file, is gone with its holder however that ended.
    """

    data_directory: Path

    @property
    def root(self) -> Path:
        return self.data_directory / "stack"

    @property
    def stack_file(self) -> Path:
        """What clients read; exists while the servers are up."""
        return self.data_directory / STACK_FILE

    @property
    def configuration_file(self) -> Path:
        """Ports and credentials, kept from one start to the next."""
        return self.root / "configuration.json"

    @property
    def supervisor_lock(self) -> Path:
        """Held by the supervisor, whose process id it contains."""
        return self.data_directory / STACK_LOCK

    @property
    def servers_lock(self) -> Path:
        """Held by the supervisor and every server: free only when the last of them has ended."""
        return self.root / "servers.lock"

    @property
    def supervisor_log(self) -> Path:
        return self.root / "supervisor.log"

    def service(self, name: str) -> Path:
        return self.root / name

    def create(self) -> None:
        try:
            self.data_directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.root.mkdir(mode=0o700, exist_ok=True)
            self.root.chmod(0o700)
            self.supervisor_lock.touch(mode=0o600)
        except OSError as error:
            raise StackError(
                f"the data directory {self.data_directory} cannot be written ({error.strerror}): "
                "make it writable, or set MLPLATFORM_DATA_DIRECTORY to one that is"
            ) from error

    def supervisor(self) -> int | None:
        """Process id of the running supervisor; None if none runs."""
        while _is_held(self.supervisor_lock):
            # Empty for the moment between its creation and the holder's first act.
            if content := self.supervisor_lock.read_text().strip():
                return int(content)
        return None

    def full(self) -> str | None:
        """Why the servers cannot write; None while there is room."""
        if not self.data_directory.exists():
            return None
        disk = shutil.disk_usage(self.data_directory)
        # SeaweedFS does not touch the last hundredth of a disk.
        if disk.free >= max(FULL_BYTES, disk.total // 100):
            return None
        return f"only {disk.free // 1024**2} MiB are free on the disk of {self.data_directory}: make room"

    def servers_live(self) -> bool:
        return _is_held(self.servers_lock)


def _is_held(path: Path) -> bool:
    try:
        return is_locked(path)
    except OSError as error:
        raise StackError(
            f"{path} cannot be read ({error.strerror}): does the stack belong to another user?"
        ) from error


def acquire(path: Path, wait_seconds: float) -> int | None:
    """File descriptor that holds the lock `path`, or None if somebody else holds on to it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    deadline = time.monotonic() + wait_seconds
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= deadline:
                os.close(descriptor)
                return None
            time.sleep(0.05)
        else:
            return descriptor


def read_json(path: Path) -> dict[str, Any]:
    """Content of `path`, empty if it does not exist."""
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return {}


def write_private_json(path: Path, content: Mapping[str, Any]) -> None:
    write_private(path, json.dumps(content, indent=2))


def write_private(path: Path, content: str) -> None:
    """Replace `path` at once, readable by its owner only."""
    new = path.with_suffix(".new")
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(content)
    new.replace(path)
