"""The process of an execution, and what it is given."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from mlplatform.errors import PlatformError
from mlplatform.io.control_plane.log_lines import Stream
from mlplatform.worker import keeper
from mlplatform.worker.pulse import Pulse

# Of a keeper that was told to kill.
SECONDS_TO_KILL = 10


class KeeperDied(PlatformError):
    """Something has killed the process that watches over the command: how the command ended is not known."""


class Child:
    """A command that runs, with whatever it starts, as long as it is held."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    @property
    def outputs(self) -> dict[Stream, asyncio.StreamReader]:
        """What it writes, by the name of the stream."""
        streams: dict[Stream, asyncio.StreamReader | None] = {
            "stdout": self._process.stdout,
            "stderr": self._process.stderr,
        }
        return {name: stream for name, stream in streams.items() if stream is not None}

    def hold(self, until: float) -> None:
        """It may run until then, a time of CLOCK_BOOTTIME, unless it is held again."""
        self._tell({"until": until})

    def end(self, grace_seconds: float) -> None:
        """SIGTERM now, and SIGKILL to all that is left after the grace."""
        self._tell({"end": grace_seconds})

    async def wait(self) -> int:
        """The exit code, once nothing is left of it; 128 and the number of a signal that ended it.

        Raises:
            KeeperDied: it is not known.
        """
        code = await self._process.wait()
        if code < 0:
            raise KeeperDied(f"the keeper of the command was ended by signal {-code}")
        return code

    async def kill(self) -> None:
        """Returns when nothing is left of it."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            async with asyncio.timeout(SECONDS_TO_KILL):
                await self._process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                self._process.kill()
            await self._process.wait()

    def _tell(self, what: Mapping[str, Any]) -> None:
        if self._process.stdin and not self._process.stdin.is_closing():
            self._process.stdin.write(json.dumps(what).encode() + b"\n")


@asynccontextmanager
async def running(
    command: Sequence[str], environment: Mapping[str, str], folder: Path, pulse: Pulse
) -> AsyncIterator[Child]:
    """The command, which is dead when this is left, when this process is, and when the pulse has ended.

    Args:
        environment: all variables that it has.
        folder: in which it begins.
    """
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-I", "-S", keeper.__file__),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        # Not the worker's, which has addresses with passwords.
        env={},
        # Ctrl-C in the worker's terminal is not for it.
        start_new_session=True,
    )
    child = Child(process)
    try:
        child._tell(
            {
                "command": list(command),
                "environment": dict(environment),
                "folder": str(folder),
                "until": pulse.until,
            }
        )
        yield child
    finally:
        await _to_its_end(child.kill())


async def _to_its_end(work: Any) -> None:
    """Also if the task is cancelled meanwhile: nothing may be left behind."""
    task = asyncio.ensure_future(work)
    while not task.done():
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            continue
