"""What commands that start processes of their own have in common."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlplatform.local import launcher
from mlplatform.local.directory import acquire
from mlplatform.local.errors import StackError


@contextmanager
def alone(path: Path, command: str) -> Iterator[None]:
    """Holds the lock file `path`: a second demo would remove the first one's data, and a second
    `dagster dev` on one storage would tick every sensor twice.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = acquire(path, wait_seconds=0)
    except OSError as error:
        raise StackError(f"{path.absolute()} cannot be written ({error.strerror})") from error
    if lock is None:
        raise StackError(f"`{command}` runs here already: end it with Ctrl-C in its terminal")
    try:
        yield
    finally:
        os.close(lock)


def with_parent(command: list[str], end: str) -> list[str]:
    """The command, which gets the signal `end` when this process dies, even by kill -9."""
    wrapper = [sys.executable, "-I", "-S", launcher.__file__, "--parent", str(os.getpid())]
    return [*wrapper, "--signal", end, "--", *command]
