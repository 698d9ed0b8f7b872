"""How often somebody may try to log in."""

from __future__ import annotations

from anyio import CapacityLimiter
from limits import RateLimitItemPerMinute
from limits.storage import MemoryStorage
from limits.strategies import SlidingWindowCounterRateLimiter

from mlplatform.services.refusals import Refused

# Of one user from one address: nobody can lock out somebody who is elsewhere.
OF_A_USER = RateLimitItemPerMinute(10)
# Of all users from one address: who tries a common password with each.
OF_AN_ADDRESS = RateLimitItemPerMinute(100)
# Each takes 64 MiB, and four threads for as long as they last.
AT_ONCE = 1


class Attempts:
    """Counts those of this process.

    Attributes:
        threads: in which passwords are verified, so that they leave the others to other requests.
    """

    def __init__(self) -> None:
        self._limiter = SlidingWindowCounterRateLimiter(MemoryStorage())
        self.threads = CapacityLimiter(AT_ONCE)

    def count(self, user: str, address: str) -> None:
        """
        Raises:
            Refused: 429, there were too many.
        """
        for limit, key in ((OF_AN_ADDRESS, (address,)), (OF_A_USER, (user, address))):
            if not self._limiter.hit(limit, *key):
                raise Refused(429, "too many attempts to log in: wait a minute", {"Retry-After": "60"})

    def forget(self, user: str, address: str) -> None:
        """Those of a user who has given the right password."""
        self._limiter.clear(OF_A_USER, user, address)
