"""A socket between a client and a server that can be cut, and that can hurt what passes."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

# A socket that lingers for no time tells the other side of an error, and not that all was said.
NO_TIME = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Harm:
    """What may befall each piece of a stream, in either direction.

    `delay`: it waits for up to so many seconds. `drop`: the probability that neither it nor what follows it
    arrives, while the connection stays open. `reset`: the probability that its beginning arrives, and then
    the connection is reset on both sides.
    """

    delay: float = 0.0
    drop: float = 0.0
    reset: float = 0.0


NONE = Harm()
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Proxy:
    """Forwards connections to the server at `url`, whatever their protocol.

    `seed`: of what befalls them, as far as the order of events allows.
    """

    def __init__(self, url: str, seed: int = 0) -> None:
        self._there = urlsplit(url)
        self._chance = random.Random(seed)
        self._harm = NONE
        self._cut = False
        self._open: set[asyncio.StreamWriter] = set()
        self._swallowed: set[asyncio.StreamWriter] = set()
        self._connections: set[asyncio.Task[None]] = set()
        self.dropped = 0
        self.resets = 0
        listener = socket.create_server(("127.0.0.1", 0))
        user, at, _ = self._there.netloc.rpartition("@")
        here = f"{user}{at}127.0.0.1:{listener.getsockname()[1]}"
        self.url = self._there._replace(netloc=here).geturl()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self._server = self._on_loop(asyncio.start_server(self._accept, sock=listener))

    @contextmanager
    def cut(self) -> Iterator[None]:
        """Closes the connections that there are, and those that are made meanwhile."""
        self._on_loop(self._set_cut(True))
        try:
            yield
        finally:
            self._on_loop(self._set_cut(False))

    @contextmanager
    def harming(self, harm: Harm) -> Iterator[None]:
        """In the end, connections of which something was dropped are reset."""
        self._harm = harm
        try:
            yield
        finally:
            self._harm = NONE
            self._on_loop(self._reset(self._swallowed))

    def end(self) -> None:
        self._on_loop(self._end())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _on_loop(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    async def _set_cut(self, cut: bool) -> None:
        self._cut = cut
        if cut:
            self._abort(self._open)

    async def _end(self) -> None:
        self._server.close()
        self._abort(self._open)
        await asyncio.gather(*self._connections)

    async def _reset(self, writers: Iterable[asyncio.StreamWriter]) -> None:
        for each in writers:
            with suppress(OSError):
                each.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_TIME)
        self._abort(writers)

    def _abort(self, writers: Iterable[asyncio.StreamWriter]) -> None:
        for each in writers:
            each.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)
        sides = {writer}
        self._open.add(writer)
        try:
            # Nobody listens there, perhaps: then who came is let go.
            with suppress(OSError):
                there = await asyncio.open_connection(self._there.hostname, self._there.port)
                sides.add(there[1])
                self._open.add(there[1])
                if not self._cut:
                    await self._connect((reader, writer), there)
        finally:
            for each in sides:
                each.close()
            for each in sides:
                with suppress(OSError):
                    await each.wait_closed()
            self._open -= sides
            self._swallowed -= sides

    async def _connect(self, one: Stream, other: Stream) -> None:
        """Returns when either has ended."""
        both = [asyncio.create_task(self._forward(*each)) for each in ((one, other), (other, one))]
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        for each in both:
            each.cancel()
        await asyncio.gather(*both, return_exceptions=True)

    async def _forward(self, one: Stream, other: Stream) -> None:
        reader, writer = one[0], other[1]
        swallows = False
        while piece := await reader.read(65536):
            if swallows:
                continue
            if self._harm.delay:
                await asyncio.sleep(self._chance.uniform(0, self._harm.delay))
            # Read only now, since it may have ended meanwhile.
            harm = self._harm
            if self._chance.random() < harm.drop:
                swallows = True
                self.dropped += 1
                self._swallowed |= {one[1], writer}
            elif self._chance.random() < harm.reset:
                self.resets += 1
                writer.write(piece[: self._chance.randrange(len(piece))])
                await self._reset([one[1], writer])
            else:
                writer.write(piece)
                await writer.drain()
