"""Keeps what a command writes: in the order in which it came, a batch at a time."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from mlplatform.io.control_plane.log_lines import Line, Stream
from mlplatform.worker.lines import Lines, Redaction

SECONDS_BETWEEN_BATCHES = 0.1
LINES_OF_A_BATCH = 200
# While the database is away; then the command waits for its output to be read.
WAITING_LINES = 10_000
WAITING_BYTES = 4 * 2**20
READ_BYTES = 65536


@dataclass(frozen=True)
class LogLimits:
    """Of one execution, in bytes."""

    line: int = 64 * 2**10
    total: int = 64 * 2**20


class Output:
    """The log of one execution.

    Args:
        keep: keeps a batch; whatever it raises ends `keep_all`.
    """

    def __init__(
        self, keep: Callable[[Sequence[Line]], Awaitable[None]], redact: Redaction, limits: LogLimits
    ) -> None:
        self._keep = keep
        self._redact = redact
        self._limits = limits
        self._waiting: deque[Line] = deque()
        self._waiting_bytes = 0
        self._total = 0
        self._number = 0
        self._full = False
        self._ended = False
        self._changed = asyncio.Condition()

    async def read(self, stream: Stream, source: asyncio.StreamReader) -> None:
        """Takes all that the stream has, until its end."""
        lines = Lines(self._redact, self._limits.line)
        while read := await source.read(READ_BYTES):
            if self._full:
                # Else the command would wait for ever to be read.
                continue
            for text in lines.feed(read):
                await self._add(stream, text)
        for text in lines.end():
            await self._add(stream, text)

    async def say(self, text: str) -> None:
        """A line of the platform's own, which is always kept."""
        await self._append("platform", self._redact(text))

    async def keep_all(self) -> None:
        """Keeps what comes, until `end` was called and all is kept."""
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._waiting or self._ended)
                if not self._waiting:
                    return
                batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), LINES_OF_A_BATCH))]
                self._waiting_bytes -= sum(len(line.text) for line in batch)
                self._changed.notify_all()
            await self._keep(batch)
            try:
                async with asyncio.timeout(SECONDS_BETWEEN_BATCHES), self._changed:
                    await self._changed.wait_for(
                        lambda: len(self._waiting) >= LINES_OF_A_BATCH or self._ended
                    )
            except TimeoutError:
                pass

    async def end(self) -> None:
        """Nothing more comes."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()

    async def _add(self, stream: Stream, text: str) -> None:
        if self._full:
            return
        self._total += len(text) + 1
        if self._total > self._limits.total:
            self._full = True
            await self.say(f"the rest is not kept: the log has reached {self._limits.total} bytes")
            return
        await self._append(stream, text)

    async def _append(self, stream: Stream, text: str) -> None:
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._waiting.append(Line(self._number, datetime.now(UTC), stream, text))
            self._number += 1
            self._waiting_bytes += len(text)
            self._changed.notify_all()

    def _has_room(self) -> bool:
        return len(self._waiting) < WAITING_LINES and self._waiting_bytes < WAITING_BYTES
