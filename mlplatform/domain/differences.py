"""Differences of a series at given periods: the transform of the target, and its inverse."""

from __future__ import annotations

from functools import cached_property

import numpy as np


class Differences:
    """z = (1 - B^p1)(1 - B^p2)… y with B the backshift (Box and Jenkins 1970); no periods: z = y.

    Works on raw lags, so that a prediction of z is undone into the unit of y.
    """

    def __init__(self, periods: tuple[int, ...] = ()) -> None:
        self.periods = periods

    @property
    def degree(self) -> int:
        """How many earlier values one difference needs."""
        return sum(self.periods)

    @cached_property
    def _coefficients(self) -> np.ndarray:
        """c with z_t = sum over j of c[j] y_(t-j), (degree + 1,)."""
        product = np.ones(1)
        for period in self.periods:
            factor = np.zeros(period + 1)
            factor[0], factor[period] = 1.0, -1.0
            product = np.convolve(product, factor)
        return product

    @cached_property
    def _terms(self) -> list[tuple[int, float]]:
        """The lags that a difference is made of, with their coefficients."""
        shifts = np.flatnonzero(self._coefficients).tolist()
        return [(shift, float(self._coefficients[shift])) for shift in shifts]

    def reference(self, lags: np.ndarray) -> np.ndarray:
        """What is added to z to get y: (n, lags) -> (n,)."""
        reference = np.zeros(len(lags))
        for shift, coefficient in self._terms[1:]:
            reference -= coefficient * lags[:, shift - 1]
        return reference

    def of_lags(self, lags: np.ndarray, available: np.ndarray) -> np.ndarray:
        """Differences of the lags, (n, lags) -> (n, lags - degree); zero where a value is missing."""
        width = lags.shape[1] - self.degree
        result = np.zeros((len(lags), width))
        for shift, coefficient in self._terms:
            result += coefficient * lags[:, shift : shift + width]
        needed = np.arange(1, width + 1) + self.degree
        result[needed[None, :] > available[:, None]] = 0.0
        return result
