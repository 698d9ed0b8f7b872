"""The population stability index: how far the data to score has moved from what a model has learned.

PSI = Σ (aᵢ − eᵢ) ln(aᵢ / eᵢ) over bins, e being the shares of the reference and a those of the new data
(N. Siddiqi, Credit Risk Scorecards, Wiley 2006, chapter 10, also for the limits 0.1 and 0.2; it is the
symmetric form of the Kullback-Leibler divergence, Jeffreys 1946).

Of samples of n and m rows from one and the same population, PSI · nm / (n + m) is about χ² with B − 1
degrees of freedom for B bins (B. Yurdakul, Statistical Properties of the Population Stability Index, Western
Michigan University 2018). So ten rows have a PSI near 1 by chance alone, and count as moved only when they
are beyond chance as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from mlplatform.domain.batch.data_checks import kind_of
from mlplatform.domain.batch.frames import arrow_compute, as_table, is_null
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.batch.frames import Frame

Level = Literal["none", "moderate", "significant"]
MODERATE = 0.1
SIGNIFICANT = 0.2
BINS = 10
# The other categories share one bin; a text with more is an id, or free.
MAX_CATEGORIES = 50
# Quantile of the normal distribution: chance alone goes beyond in one of a thousand columns.
CHANCE_Z = 3.09
# A bin that is empty on one side counts as half a row, or the logarithm would have no value.
EMPTY_BIN_ROWS = 0.5


class StabilityError(PlatformError):
    """New data cannot be compared with the reference; the message names the column."""


@dataclass(frozen=True)
class ColumnStability:
    """`chance` is the PSI that two samples of this size may have without any change."""

    psi: float
    chance: float
    rows: int

    @property
    def level(self) -> Level:
        if self.psi <= self.chance or self.psi < MODERATE:
            return "none"
        return "significant" if self.psi >= SIGNIFICANT else "moderate"


def reference_histograms(frame: Frame, columns: Sequence[str], bins: int = BINS) -> dict[str, dict[str, Any]]:
    """{column: histogram} of the training data, ready for JSON.

    Numbers, times and booleans have bins of about equal numbers of rows, bounded by quantiles (`edges`, each
    the end of a bin and in it); texts have one for each category. The bin `missing` is the last of `counts`,
    and before it, for texts, that of all other categories.
    """
    table = as_table(frame)
    result = {}
    for name in columns:
        column = table.column(name)
        if kind_of(column.type) == "text":
            values, counts = np.unique(column.drop_null().to_numpy().astype(str), return_counts=True)
            most = np.argsort(-counts, kind="stable")[:MAX_CATEGORIES]
            histogram: dict[str, Any] = {"kind": "text", "categories": sorted(values[most].tolist())}
        else:
            numbers = _numbers(column, name)
            present = numbers[~np.isnan(numbers)]
            inner = np.linspace(0, 1, bins + 1)[1:-1]
            # Values that occur, so that equal ones never fall on both sides for want of a bit.
            edges = np.unique(np.quantile(present, inner, method="inverted_cdf")) if len(present) else []
            histogram = {"kind": "number", "edges": [float(edge) for edge in edges]}
        result[name] = {**histogram, "counts": _counts(column, histogram, name).tolist()}
    return result


class Stability:
    """Compares new data, chunk by chunk, with the histograms of the training data."""

    def __init__(self, reference: Mapping[str, Mapping[str, Any]]) -> None:
        self._reference = reference
        self._counts = {
            name: np.zeros(len(histogram["counts"]), dtype=np.int64) for name, histogram in reference.items()
        }

    def add(self, frame: Frame) -> None:
        """Raises StabilityError: a column is not there, or of another kind than in training."""
        table = as_table(frame)
        for name, histogram in self._reference.items():
            if name not in table.column_names:
                raise StabilityError(f"the column {name} of the training data is not in the new data")
            self._counts[name] += _counts(table.column(name), histogram, name)

    def result(self) -> dict[str, ColumnStability]:
        """By column; without any rows, nothing has moved."""
        return {
            name: _compare(np.asarray(histogram["counts"]), self._counts[name])
            for name, histogram in self._reference.items()
        }


def population_stability_index(expected: np.ndarray, actual: np.ndarray) -> float:
    """PSI of (B,) counts of rows in the bins; bins that are empty on both sides count nothing."""
    used = (expected > 0) | (actual > 0)
    if not used.any() or not expected.sum() or not actual.sum():
        return 0.0
    e, a = (np.maximum(counts[used], EMPTY_BIN_ROWS) for counts in (expected, actual))
    e, a = e / e.sum(), a / a.sum()
    return float(np.sum((a - e) * np.log(a / e)))


def _compare(expected: np.ndarray, actual: np.ndarray) -> ColumnStability:
    n, m = int(expected.sum()), int(actual.sum())
    if not n or not m:
        return ColumnStability(0.0, 0.0, m)
    freedom = max(int(np.sum((expected > 0) | (actual > 0))) - 1, 1)
    # The quantile of χ² by the cube approximation of Wilson and Hilferty (1931).
    share = 2 / (9 * freedom)
    quantile = freedom * (1 - share + CHANCE_Z * np.sqrt(share)) ** 3
    return ColumnStability(population_stability_index(expected, actual), float(quantile * (1 / n + 1 / m)), m)


def _counts(column: pa.ChunkedArray, histogram: Mapping[str, Any], name: str) -> np.ndarray:
    missing = is_null(column)
    if histogram["kind"] == "text":
        import pyarrow as pa

        pc = arrow_compute()

        categories = histogram["categories"]
        places = pc.index_in(pc.cast(column, pa.string()), pa.array(categories, pa.string()))
        bins = pc.fill_null(places, len(categories)).to_numpy()
        size = len(categories) + 2
    else:
        numbers = _numbers(column, name)
        bins = np.searchsorted(np.asarray(histogram["edges"]), numbers, side="left")
        size = len(histogram["edges"]) + 2
    return np.bincount(np.where(missing, size - 1, bins), minlength=size)


def _numbers(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """(n,) floats, NaN where missing; times are seconds since 1970."""
    import pyarrow as pa

    pc = arrow_compute()

    kind = kind_of(column.type)
    if kind == "timestamp":
        column = pc.cast(pc.cast(column, pa.timestamp("s"), safe=False), pa.int64())
    elif kind == "boolean":
        column = pc.cast(column, pa.int8())
    elif kind != "number" and not pa.types.is_null(column.type):
        raise StabilityError(
            f"the column {name} is of type {column.type}, and was a number in training; correct the scoring "
            "table"
        )
    return pc.cast(column, pa.float64(), safe=False).to_numpy()
