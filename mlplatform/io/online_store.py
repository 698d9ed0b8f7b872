"""The newest values of each series in Redis, for those who must read them in a millisecond."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redis import Redis

# One call, one atomic change. ARGV: offset of the newest value, how many to keep, values newest
# first. An older push never overwrites a newer one, and a repeated one changes nothing. Stored values
# are consecutive: after a gap the list starts anew, and is whole again when it is next published.
_PUBLISH = """
local head = tonumber(redis.call('HGET', KEYS[1], 'offset') or '-1')
local offset = tonumber(ARGV[1])
local complete = redis.call('LLEN', KEYS[2]) >= tonumber(ARGV[2])
if offset < head or (offset == head and complete) then return 0 end
redis.call('HSET', KEYS[1], 'offset', ARGV[1])
redis.call('DEL', KEYS[2])
redis.call('RPUSH', KEYS[2], unpack(ARGV, 3))
return 1
"""
_PUSH = """
local head = tonumber(redis.call('HGET', KEYS[1], 'offset') or '-1')
local offset = tonumber(ARGV[1])
if offset <= head then return {0, redis.call('LRANGE', KEYS[2], 0, -1)} end
if offset > head + 1 then redis.call('DEL', KEYS[2]) end
redis.call('HSET', KEYS[1], 'offset', ARGV[1])
redis.call('LPUSH', KEYS[2], ARGV[3])
redis.call('LTRIM', KEYS[2], 0, ARGV[2] - 1)
return {1, redis.call('LRANGE', KEYS[2], 0, -1)}
"""


class OnlineStoreUnavailable(Exception):
    """Redis does not answer; online features are stale until it does."""


class OnlineStore:
    """`series:{id}:values` (newest first, the seed's key) and `series:{id}:head` (their offset).

    `prefix` keeps apart what belongs to different logs.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        self._url = url
        self._prefix = f"{prefix}:" if prefix else ""

    def _keys(self, series_id: str) -> list[str]:
        return [f"{self._prefix}series:{series_id}:{part}" for part in ("head", "values")]

    @cached_property
    def _redis(self) -> Redis:
        import redis

        return redis.Redis.from_url(
            self._url, decode_responses=True, socket_timeout=5, socket_connect_timeout=2
        )

    def publish(self, newest: Iterable[tuple[str, int, Sequence[float]]]) -> int:
        """Publishes (series_id, offset of the newest value, values newest first); returns how many changed.

        Raises:
            OnlineStoreUnavailable: Redis does not answer.
        """
        from redis.exceptions import NoScriptError, RedisError

        series = list(newest)
        try:
            try:
                return self._publish(series)
            except NoScriptError:
                # As a new Redis says. To ask before takes as long as to publish.
                self._redis.script_load(_PUBLISH)
                return self._publish(series)
        except RedisError as error:
            raise OnlineStoreUnavailable(f"Redis: {error}; look at `mlplatform status`") from error

    def _publish(self, newest: Sequence[tuple[str, int, Sequence[float]]]) -> int:
        script = self._redis.register_script(_PUBLISH).sha
        pipeline = self._redis.pipeline(transaction=False)
        for series_id, offset, values in newest:
            keys = self._keys(series_id)
            pipeline.evalsha(script, len(keys), *keys, offset, len(values), *map(repr, values))
        return sum(pipeline.execute())

    def push(self, series_id: str, offset: int, value: float, keep: int) -> list[float]:
        """Adds one value and returns the newest `keep`, newest first, in one call.

        They are fewer after a gap in the offsets: what is known is consecutive.

        Raises:
            OnlineStoreUnavailable: Redis does not answer.
        """
        import redis

        try:
            push = self._redis.register_script(_PUSH)
            _, values = push(self._keys(series_id), [offset, keep, repr(value)])
            return [float(each) for each in values]
        except redis.RedisError as error:
            raise OnlineStoreUnavailable(f"Redis: {error}; look at `mlplatform status`") from error

    def read(self, series_id: str) -> tuple[int, list[float]] | None:
        """Offset of the newest value and the values, newest first; None for an unknown series."""
        import redis

        head, values = self._keys(series_id)
        try:
            pipeline = self._redis.pipeline()
            pipeline.hget(head, "offset")
            pipeline.lrange(values, 0, -1)
            offset, found = pipeline.execute()
        except redis.RedisError as error:
            raise OnlineStoreUnavailable(f"Redis: {error}; look at `mlplatform status`") from error
        return None if offset is None else (int(offset), [float(each) for each in found])

    def discard(self, series_ids: Iterable[str]) -> None:
        """Forgets series whose log does not have what is stored of them, since it was begun anew.

        Raises:
            OnlineStoreUnavailable: Redis does not answer.
        """
        import redis

        keys = [key for series_id in series_ids for key in self._keys(series_id)]
        try:
            if keys:
                self._redis.unlink(*keys)
        except redis.RedisError as error:
            raise OnlineStoreUnavailable(f"Redis: {error}; look at `mlplatform status`") from error

    def instance(self) -> str:
        """Names the running server: another one, or one that was started again, may have lost everything.

        Raises:
            OnlineStoreUnavailable: Redis does not answer.
        """
        import redis

        try:
            return str(self._redis.info("server")["run_id"])
        except redis.RedisError as error:
            raise OnlineStoreUnavailable(f"Redis: {error}; look at `mlplatform status`") from error
