"""Concept drift: when a model's errors become larger than they were."""

from __future__ import annotations

import numpy as np


class DriftMonitor:
    """ADWIN (Bifet and Gavaldà 2007) over errors relative to their own running mean.

    Dividing by the mean puts errors of any unit on one scale, and the cap keeps a single outlier from
    looking like a change. Errors that become smaller are no drift. The confidence is far stricter than
    River's default, which raised an alarm on two of five healthy series.
    """

    WARM_UP = 24
    CAP = 30.0
    DELTA = 1e-5
    CLOCK = 4

    def __init__(self) -> None:
        self.detections = 0
        self._adwin = None
        self._count = 0
        self._mean = 0.0

    def update(self, errors: np.ndarray) -> None:
        """(n,) absolute errors, in order."""
        if self._adwin is None:
            from river.drift import ADWIN

            self._adwin = ADWIN(delta=self.DELTA, clock=self.CLOCK)
        for error in errors.tolist():
            self._count += 1
            self._mean += (error - self._mean) / self._count
            if self._count <= self.WARM_UP or self._mean == 0:
                continue
            before = self._adwin.estimation
            self._adwin.update(min(error / self._mean, self.CAP))
            self.detections += self._adwin.drift_detected and self._adwin.estimation > before
