"""What events are handed to that leave the platform: webhooks, or a broker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from sqlalchemy import RowMapping


@dataclass(frozen=True)
class Published:
    """How far it went.

    Attributes:
        position: the id of the last event that was taken; None: of none.
        trouble: why not all were taken; None: all were.
        seconds_to_wait: what the other side asks for before the next attempt.
        unwanted: the other side wants nothing more, ever.
    """

    position: int | None
    trouble: str | None = None
    seconds_to_wait: float | None = None
    unwanted: bool = False


class Publisher(Protocol):
    """Takes events in their order, each at least once: what follows `position` is handed over again.

    A broker is put under the control plane by another implementation: what was taken is what it has
    acknowledged, and the `event_id` is what it knows repetitions by.
    """

    def publish(self, events: Sequence[RowMapping]) -> Published:
        """
        Args:
            events: rows of the table `events`, the oldest first; at least one.
        """
        ...
