"""Until when a worker may be sure of its leases."""

from __future__ import annotations

import time


class Pulse:
    """Whether the worker's newest heartbeat is younger than its time-out.

    Counted from before each was sent, so that it ends here no later than where it was kept. What was stopped
    or slept finds that it has ended.
    """

    def __init__(self, timeout_seconds: float) -> None:
        self.timeout_seconds = timeout_seconds
        self.until = now() + timeout_seconds

    @property
    def left(self) -> float:
        """Seconds; not above 0 if it has ended."""
        return self.until - now()

    def beat(self, sent: float) -> None:
        """A heartbeat was kept, which was sent then."""
        self.until = sent + self.timeout_seconds


def now() -> float:
    """Seconds, also those in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)
