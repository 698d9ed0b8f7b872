"""The champion: which model serves a series."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from mlplatform.domain.metrics import RollingMetrics

HALF_LIFE = 60
WARM_UP = 24
HYSTERESIS = 0.05
# Changes of champion that are remembered of a series.
KEPT_CHANGES = 20


@dataclass(frozen=True)
class Change:
    """`champion` serves from observation `offset` on, instead of `previous` (None: it is the first).

    The errors are the rolling ones at that moment, in the unit of the data.
    """

    offset: int
    champion: str
    previous: str | None
    error: float
    previous_error: float | None


@dataclass
class Contest:
    """Chooses the champion of one series from what the models said before they learned.

    The rolling error is an exponentially weighted mean of absolute errors with a half-life of 60
    observations. A challenger becomes champion when it has made at least 24 predictions and its
    error is at least 5 % below the champion's, so that the title does not change hands on
    noise. A champion that has said nothing for 24 observations has lost it. `changes` are the last
    20 changes, oldest first.
    """

    champion: str | None = None
    since_offset: int = 0
    errors: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    absent: int = 0
    metrics: RollingMetrics = field(default_factory=RollingMetrics)
    changes: tuple[Change, ...] = ()

    def predict(self, predictions: Mapping[str, float], candidates: set[str]) -> tuple[str, float]:
        """Who serves and what it says; the best candidate so far where no champion has spoken."""
        if self.champion is not None and self.champion in predictions:
            return self.champion, predictions[self.champion]
        eligible = candidates & predictions.keys() or set(predictions)
        best = min(eligible, key=lambda name: (self.errors.get(name, math.inf), name))
        return best, predictions[best]

    def learn(
        self, offset: int, value: float, predictions: Mapping[str, float], candidates: set[str]
    ) -> None:
        """Counts the errors of one observation, then looks who leads."""
        if offset > 0:
            _, prediction = self.predict(predictions, candidates)
            self.metrics.update(np.array([value]), np.array([prediction]))
        for name, prediction in predictions.items():
            count = self.counts[name] = self.counts.get(name, 0) + 1
            weight = max(1 / count, 1 - 0.5 ** (1 / HALF_LIFE))
            error = self.errors.get(name, 0.0)
            self.errors[name] = error + weight * (abs(value - prediction) - error)
        # A model that no longer learns has an error that no longer moves: it cannot lead.
        ready = [n for n in candidates & predictions.keys() if self.counts[n] >= WARM_UP]
        self.absent = 0 if self.champion in predictions else self.absent + 1
        if not ready:
            return
        leader = min(ready, key=lambda name: (self.errors[name], name))
        to_beat = math.inf
        if self.champion is not None and self.absent < WARM_UP:
            to_beat = (1 - HYSTERESIS) * self.errors[self.champion]
        if leader != self.champion and self.errors[leader] < to_beat:
            self._crown(leader, offset + 1)

    def _crown(self, leader: str, offset: int) -> None:
        previous_error = None if self.champion is None else self.errors[self.champion]
        change = Change(offset, leader, self.champion, self.errors[leader], previous_error)
        self.changes = (*self.changes, change)[-KEPT_CHANGES:]
        self.champion, self.since_offset, self.absent = leader, offset, 0

    def loses_to(self, baselines: set[str]) -> str | None:
        """The baseline with a lower rolling error than the champion's, if there is one."""
        if self.champion is None:
            return None
        ahead = {n: self.errors[n] for n in baselines if n in self.errors}
        best = min(ahead, key=lambda name: (ahead[name], name), default=None)
        return best if best is not None and ahead[best] < self.errors[self.champion] else None
