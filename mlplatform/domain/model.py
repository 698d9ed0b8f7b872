"""Models: a recipe with its state for one series, folded over the log."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from mlplatform.domain.differences import Differences
from mlplatform.domain.drift import DriftMonitor
from mlplatform.domain.families import Families, Family
from mlplatform.domain.lags import lag_matrix, shifted
from mlplatform.domain.metrics import RollingMetrics
from mlplatform.domain.recipe import Recipe


class ModelError(Exception):
    """A model cannot learn; the message names the model, the series and the offset."""

    def __init__(self, message: str, series_id: str = "") -> None:
        super().__init__(message)
        self.series_id = series_id


@dataclass(frozen=True)
class FeatureRows:
    """Lag features of consecutive positions of a shard's log, as columns of n rows.

    `lags` is (n, N) with the newest first; a series whose family has fewer lags leaves the rest.
    """

    position: np.ndarray
    series_id: np.ndarray
    offset: np.ndarray
    event_time: np.ndarray
    value: np.ndarray
    available: np.ndarray
    lags: np.ndarray

    def __len__(self) -> int:
        return len(self.position)

    def without(self, series_ids: Collection[str]) -> FeatureRows:
        """The rows of all other series."""
        if not series_ids:
            return self
        kept = np.array([series_id not in series_ids for series_id in self.series_id], dtype=bool)
        return FeatureRows(**{name: column[kept] for name, column in vars(self).items()})

    def by_series(self) -> Iterator[tuple[str, np.ndarray]]:
        """Each series with the indices of its rows, in order of their offsets."""
        names, codes = np.unique(self.series_id, return_inverse=True)
        order = np.argsort(codes, kind="stable")
        bounds = np.searchsorted(codes[order], np.arange(len(names) + 1))
        for code, name in enumerate(names.tolist()):
            yield name, order[bounds[code] : bounds[code + 1]]


class Model:
    """A recipe with its state, for one series."""

    def __init__(self, recipe: Recipe, family: Family) -> None:
        self._family = family
        self._differences = recipe.differences(family)
        widest = family.lags - self._differences.degree
        self._width = min(recipe.lags or widest, widest)
        self._lags = np.zeros(family.lags)
        self._available = 0
        self.estimator = recipe.estimator(family.season)
        self.metrics = RollingMetrics()
        self.drift = None if recipe.baseline else DriftMonitor()
        self.next_offset = 0

    def fold(self, offsets: np.ndarray, lags: np.ndarray, available: np.ndarray, values: np.ndarray):
        """Predicts each observation, then learns from it.

        Until a difference can be taken, the last value is predicted (zero before the first) and the
        estimator waits. A prediction made of nothing does not count in the metrics.

        Args:
            offsets: (n,) dense, from `next_offset`.
            lags: (n, N) newest first.
            available: (n,) earlier values that each row has.
            values: (n,) what was observed.

        Returns:
            (n,) predictions in the unit of the values.

        Raises:
            ModelError: an observation is missing or learned already, or a prediction is not finite.
        """
        expected = np.arange(self.next_offset, self.next_offset + len(offsets))
        if not np.array_equal(offsets, expected):
            raise ModelError(f"expected offset {self.next_offset}, got {offsets[:3].tolist()}…")
        predictions = lags[:, 0].copy()
        differenced = available >= max(self._differences.degree, 1)
        if differenced.any():
            rows, reference = lags[differenced], self._differences.reference(lags[differenced])
            features = self._differences.of_lags(rows, available[differenced])[:, : self._width]
            targets = values[differenced] - reference
            predictions[differenced] = reference + self.estimator.fold(features, targets)
        if not np.isfinite(predictions).all():
            bad = int(offsets[np.flatnonzero(~np.isfinite(predictions))[0]])
            raise ModelError(f"the prediction of offset {bad} is not finite")
        counted = available > 0
        self.metrics.update(values[counted], predictions[counted])
        if self.drift:
            self.drift.update(np.abs(values[counted] - predictions[counted]))
        self.next_offset += len(offsets)
        self._lags = shifted(lags[-1], values[-1])
        self._available = min(int(available[-1]) + 1, len(self._lags))
        return predictions

    def baselines(self) -> dict[str, list[float]]:
        """What the baselines said of the newest observations, oldest first, as far as the lags reach back."""
        season = self._family.season
        periods = {"naive": (1,)} | (
            {"seasonal naive": (season,), "airline naive": (1, season)} if season else {}
        )
        values = self._lags[: self._available][::-1]
        said = {}
        for name, each in periods.items():
            differences = Differences(each)
            rows = len(values) - differences.degree
            if rows > 0:
                lags, _ = lag_matrix([], values, differences.degree)
                said[name] = differences.reference(lags)[differences.degree :].tolist()
        return said

    @property
    def earlier(self) -> tuple[float, ...]:
        """The values that were learned last, newest first, as far as the lags reach back."""
        return tuple(self._lags[: self._available].tolist())

    def shown(self, given: np.ndarray) -> tuple[np.ndarray, int]:
        """The lags that a caller means who gives the newest ones of a series.

        The series' own, which may reach further back, where the given ones agree with them; else the given
        ones, of which zeros at the end are taken for missing.

        Args:
            given: (k,) newest first, zero-filled; of more than N, the newest N are read.

        Returns:
            (N,) lags, and how many earlier values they have.
        """
        given = given[: len(self._lags)]
        if np.array_equal(given, self._lags[: len(given)]):
            return self._lags, self._available
        lags = np.zeros(len(self._lags))
        lags[: len(given)] = given
        return lags, int(np.flatnonzero(given)[-1]) + 1 if given.any() else 0

    def forecast(self, steps: int, given: np.ndarray | None = None) -> list[float]:
        """The next `steps` values, each made of the ones before it, after the `given` lags (see `shown`)."""
        lags, available = (self._lags, self._available) if given is None else self.shown(given)
        values = []
        for ahead in range(steps):
            value = self._predict(lags, available, ahead)
            values.append(value)
            lags, available = shifted(lags, value), min(available + 1, len(lags))
        return values

    def _predict(self, lags: np.ndarray, available: int, ahead: int) -> float:
        if available < max(self._differences.degree, 1):
            return float(lags[0])
        row, known = lags[None, :], np.array([available])
        features = self._differences.of_lags(row, known)[0, : self._width]
        return float(self._differences.reference(row)[0]) + self.estimator.predict(features, ahead)


class ModelSet:
    """The models of some recipes for every series of a shard, learned up to one position."""

    def __init__(self, recipes: tuple[Recipe, ...], families: Families) -> None:
        self.recipes = recipes
        self.families = families
        self.models: dict[tuple[str, str], Model] = {}
        self.behind: set[str] = set()

    @property
    def versions(self) -> dict[str, str]:
        """Each recipe's name with the version that makes its predictions."""
        return {recipe.name: recipe.digest for recipe in self.recipes}

    def forget(self, series_ids: Collection[str]) -> None:
        """Drops the models of some series: the next fold starts them anew."""
        self.models = {key: model for key, model in self.models.items() if key[1] not in series_ids}

    def fold(self, rows: FeatureRows) -> dict[str, np.ndarray]:
        """What each recipe said of each row before it learned it: {recipe: (n,)}.

        Raises:
            ModelError: a model cannot learn; the set must then be thrown away.
        """
        predictions = {recipe.name: np.empty(len(rows)) for recipe in self.recipes}
        for series_id, indices in rows.by_series():
            family = self.families.of(series_id)
            columns = (
                rows.offset[indices],
                rows.lags[indices, : family.lags],
                rows.available[indices],
                rows.value[indices],
            )
            for recipe in self.recipes:
                model = self.models.get((recipe.name, series_id))
                if model is None:
                    model = self.models[recipe.name, series_id] = Model(recipe, family)
                try:
                    predictions[recipe.name][indices] = model.fold(*columns)
                except Exception as error:
                    kind = "" if isinstance(error, ModelError) else f"{type(error).__name__}: "
                    said = f"model {recipe.name!r} of series {series_id!r}: {kind}{error}"
                    raise ModelError(said, series_id) from error
        return predictions
