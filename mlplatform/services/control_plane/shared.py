"""One life of an application that several servers serve, each of which begins and ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

from fastapi import FastAPI


class Shared:
    """Begins with the first, and ends with the last: nobody's requests lose what they work with."""

    def __init__(self, lifespan: Callable[[FastAPI], AbstractAsyncContextManager[None]]) -> None:
        self._lifespan = lifespan
        self._lock = asyncio.Lock()
        self._living = AsyncExitStack()
        self._servers = 0

    @asynccontextmanager
    async def __call__(self, app: FastAPI) -> AsyncIterator[None]:
        async with self._lock:
            if not self._servers:
                await self._living.enter_async_context(self._lifespan(app))
            self._servers += 1
        try:
            yield
        finally:
            async with self._lock:
                self._servers -= 1
                if not self._servers:
                    await self._living.aclose()
