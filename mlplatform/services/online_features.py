"""Keeps Redis as the feature service is, whatever happens to Redis."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from mlplatform.io.online_store import OnlineStore, OnlineStoreUnavailable
from mlplatform.services.feature_log import Series

# How long an answer waits for Redis: what it takes when nothing is wrong, and a little more.
PATIENCE_SECONDS = 0.1
LOOK_SECONDS = 1.0
AT_ONCE = 1000

log = logging.getLogger(__name__)


class OnlineFeatures:
    """Publishes the ends of series that changed, all that wait at once, in the background.

    Belongs to one event loop.

    Args:
        series: the ends as they are now, which Redis is to have.
        lags: how many values of a series Redis has.
    """

    def __init__(
        self, store: OnlineStore, series: Callable[[], Mapping[str, Series]], lags: Callable[[str], int]
    ) -> None:
        self._store = store
        self._series = series
        self._lags = lags
        # Of their own, so that a Redis that hangs holds up no commit.
        self._threads = ThreadPoolExecutor(4, "redis")
        self._changed: set[str] = set()
        self._begun: set[str] = set()
        self._wanted = asyncio.Event()
        self._round = asyncio.get_running_loop().create_future()
        self._hangs = False
        self._instance: str | None = None
        self._looked_at = -math.inf
        self.up: bool | None = None

    async def changed(self, series_id: str, begun: bool) -> None:
        """Returns when Redis has the series, or has had its time.

        Args:
            begun: whether this is the series' first observation: what Redis has of it is of another log.
        """
        self._changed.add(series_id)
        if begun:
            self._begun.add(series_id)
        self._wanted.set()
        if self.up and not self._hangs:
            done, _ = await asyncio.wait([self._round], timeout=PATIENCE_SECONDS)
            self._hangs |= not done

    async def first_round(self) -> None:
        """Returns when Redis has what it is to have, or has had the time that it takes to connect."""
        await asyncio.wait([self._round], timeout=LOOK_SECONDS)

    def begin_anew(self) -> None:
        """Forgets what Redis has of the series: some of it may be lost everywhere else."""
        self._begun.update(self._series())

    async def read(self, series_id: str) -> tuple[int, list[float]] | None:
        """Offset of the newest value and the values, newest first; None if Redis has no such series.

        Raises:
            OnlineStoreUnavailable: Redis does not answer, or not in time.
        """
        if not self.up or self._hangs:
            raise OnlineStoreUnavailable("Redis does not answer; look at `mlplatform status`")
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await self._call(self._store.read, series_id)
        except TimeoutError:
            raise OnlineStoreUnavailable("Redis takes too long; look at `mlplatform status`") from None

    async def run(self) -> None:
        """Publishes until it is cancelled."""
        while True:
            if not await self.publish():
                await asyncio.sleep(LOOK_SECONDS / 2)
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS):
                    await self._wanted.wait()

    async def publish(self) -> bool:
        """Publishes what changed; False if Redis does not answer: then all of it waits for the next time."""
        self._wanted.clear()
        changed, begun, done = self._changed, self._begun, self._round
        self._changed, self._begun = set(), set()
        self._round = asyncio.get_running_loop().create_future()
        try:
            await self._look(changed)
            if begun:
                await self._call(self._store.discard, begun)
            series = self._series()
            newest = [
                (name, series[name].offset, series[name].values(self._lags(name)))
                for name in changed
                if name in series
            ]
            for start in range(0, len(newest), AT_ONCE):
                await self._call(self._store.publish, newest[start : start + AT_ONCE])
        except Exception as error:  # whatever it is, what comes after is to be published too
            self._changed |= changed
            self._begun |= begun
            self._instance, self._looked_at = None, -math.inf
            if self.up is not False:
                expected = isinstance(error, OnlineStoreUnavailable)
                log.warning("REDIS UNAVAILABLE: %s", error, exc_info=None if expected else error)
            self.up = False
        else:
            if not self.up:
                log.info("REDIS CONNECTED")
            self.up, self._hangs = True, False
        finally:
            done.set_result(None)
        return self.up

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _look(self, changed: set[str]) -> None:
        """Adds all series to those that changed if this Redis is not the one that had them."""
        now = time.monotonic()
        if now - self._looked_at < LOOK_SECONDS:
            return
        instance = await self._call(self._store.instance)
        if instance != self._instance:
            changed.update(self._series())
        self._instance, self._looked_at = instance, now

    async def _call(self, call: Callable[..., Any], *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call, *arguments)
