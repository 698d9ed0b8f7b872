"""Metrics of classification and regression, with weights, so that a bootstrap is one more dimension.

Each metric is written for many weightings of the same rows at once: `weights` is (b, n), the result (b,).
Weights of 1 give the usual value; the counts of a bootstrap resample give that resample's value, without
sorting its rows again. Definitions are scikit-learn's, to which the tests compare every one of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mlplatform.domain.batch.metric_names import METRICS
from mlplatform.domain.batch.pipeline import ProblemType
from mlplatform.errors import PlatformError

LOWER_IS_BETTER = frozenset({"log_loss", "brier_score", "rmse", "mse", "mae", "mape"})
RESAMPLES = 1_000
SEED = 42
# Numbers of a batch of weightings: 32 MB.
_BATCH = 4_000_000


class MetricError(PlatformError):
    """A metric has no value for these rows; the message says why and the remedy."""


@dataclass(frozen=True)
class Interval:
    """A value with the bounds of its bootstrap interval; `coverage` is the share of resamples within."""

    value: float
    lower: float
    upper: float
    coverage: float = 0.95


@dataclass(frozen=True)
class Predictions:
    """What a model said of n rows, beside the truth.

    `target` (n,) holds class numbers and `scores` (n, k) probabilities, or both (n,) numbers for regression.
    `positive` is the class that a binary model looks for, from the probability `threshold` on.
    """

    problem_type: ProblemType
    target: np.ndarray
    scores: np.ndarray
    positive: int = 1
    threshold: float = 0.5

    @property
    def rows(self) -> int:
        return len(self.target)

    @property
    def chosen(self) -> np.ndarray:
        """(n,) class numbers that the scores speak for."""
        import numpy as np

        if self.problem_type == "binary_classification":
            return np.where(self.positive_scores >= self.threshold, self.positive, 1 - self.positive)
        return np.argmax(self.scores, axis=1)

    @property
    def positive_scores(self) -> np.ndarray:
        """(n,) probabilities of the positive class."""
        return self.scores[:, self.positive]

    @property
    def positives(self) -> np.ndarray:
        """(n,) whether a row is of the positive class."""
        return self.target == self.positive

    def only(self, rows: np.ndarray) -> Predictions:
        """The same of some rows, by number or mask."""
        return Predictions(
            self.problem_type, self.target[rows], self.scores[rows], self.positive, self.threshold
        )


def evaluate(names: Sequence[str], predictions: Predictions) -> dict[str, float]:
    """The value of each metric.

    Raises:
        MetricError: there are no rows, there is no such metric for the problem type, or it has no value
            for these rows (an area under a curve needs two classes, r2 two different values).
    """
    if not predictions.rows:
        raise MetricError("there are no rows to evaluate on: check the data's windows")
    ones = np.ones((1, predictions.rows))
    values = {name: float(_metric(name, predictions.problem_type)(predictions, ones)[0]) for name in names}
    for name, value in values.items():
        if not np.isfinite(value):
            what = (
                "two different values" if predictions.problem_type == "regression" else "rows of two classes"
            )
            raise MetricError(
                f"{name} has no value: the {predictions.rows:,} rows to evaluate on need {what}; take more of"
                " them, or other windows"
            )
    return values


def intervals(
    names: Sequence[str], predictions: Predictions, resamples: int = RESAMPLES, seed: int = SEED
) -> dict[str, Interval]:
    """Each metric with its percentile bootstrap interval of 95 % over rows drawn with replacement (Efron and
    Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Resamples for which a metric has no
    value do not count.

    Raises:
        MetricError: as `evaluate`.
    """
    values = evaluate(names, predictions)
    drawn = {name: np.empty(resamples) for name in names}
    for rows, weights in resampled(predictions.rows, resamples, seed):
        for name in names:
            drawn[name][rows] = _metric(name, predictions.problem_type)(predictions, weights)
    bounds = {name: np.nanquantile(drawn[name], (0.025, 0.975)) for name in names}
    return {name: Interval(values[name], *map(float, bounds[name])) for name in names}


def resampled(rows: int, resamples: int, seed: int) -> Iterator[tuple[slice, np.ndarray]]:
    """Bootstrap weightings in batches: which resamples, and (batch, rows) how often each row was drawn."""
    random = np.random.default_rng(seed)
    batch = max(1, _BATCH // max(rows, 1))
    for start in range(0, resamples, batch):
        count = min(batch, resamples - start)
        weights = np.empty((count, rows))
        for each in range(count):
            weights[each] = np.bincount(random.integers(0, rows, rows), minlength=rows)
        yield slice(start, start + count), weights


def weighted(name: str, predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """(b,) one metric under each of the weightings (b, n); NaN where it has no value."""
    return _metric(name, predictions.problem_type)(predictions, weights)


def by_partition(
    names: Sequence[str], predictions: Predictions, partitions: np.ndarray
) -> list[dict[str, object]]:
    """The metrics of each partition's rows, in order: {"partition", "rows", metric: value or None where it
    has none}.
    """
    result = []
    for partition in np.unique(partitions):
        part = predictions.only(partitions == partition)
        ones = np.ones((1, part.rows))
        values = {name: float(weighted(name, part, ones)[0]) for name in names}
        finite = {name: value if np.isfinite(value) else None for name, value in values.items()}
        result.append({"partition": str(partition), "rows": part.rows, **finite})
    return result


Metric = Callable[[Predictions, np.ndarray], np.ndarray]


def _metric(name: str, problem_type: ProblemType) -> Metric:
    if name not in METRICS[problem_type]:
        raise MetricError(
            f"there is no metric {name} for {problem_type}: take {', '.join(METRICS[problem_type])}"
        )
    return _FUNCTIONS[problem_type][name]


def _divide(numerator: np.ndarray, denominator: np.ndarray, otherwise: float) -> np.ndarray:
    result = np.full(np.broadcast(numerator, denominator).shape, otherwise)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def _mean(losses: np.ndarray, weights: np.ndarray) -> np.ndarray:
    return weights @ losses / weights.sum(axis=1)


def _cumulated(predictions: Predictions, weights: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """(b, t) weights of positive and of negative rows whose score of a class is at least each of its t
    distinct values, from the highest down.
    """
    scores = predictions.scores[:, number]
    order = np.argsort(-scores, kind="stable")
    sorted_scores = scores[order]
    ends = np.flatnonzero(np.append(sorted_scores[1:] != sorted_scores[:-1], True))
    positive = (predictions.target[order] == number).astype(float)
    each = weights[:, order]
    return np.cumsum(each * positive, axis=1)[:, ends], np.cumsum(each * (1 - positive), axis=1)[:, ends]


def _area_under_roc(predictions: Predictions, weights: np.ndarray, number: int) -> np.ndarray:
    hits, misses = (_from_zero(each) for each in _cumulated(predictions, weights, number))
    area = (np.diff(misses) * (hits[:, 1:] + hits[:, :-1]) / 2).sum(axis=1)
    return _divide(area, hits[:, -1] * misses[:, -1], np.nan)


def _from_zero(cumulated: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros((len(cumulated), 1)), cumulated], axis=1)


def _roc_auc(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _area_under_roc(predictions, weights, predictions.positive)


def _roc_auc_each(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """The mean over the classes, each against the rest."""
    areas = [_area_under_roc(predictions, weights, number) for number in range(predictions.scores.shape[1])]
    return np.mean(areas, axis=0)


def _average_precision(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    hits, misses = _cumulated(predictions, weights, predictions.positive)
    precision = _divide(hits, hits + misses, 0.0)
    gained = np.diff(_from_zero(hits))
    return _divide((gained * precision).sum(axis=1), hits[:, -1], np.nan)


def _confusion(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """(b, k, k) weights of rows by class and by chosen class."""
    count = predictions.scores.shape[1]
    cells = predictions.target * count + predictions.chosen
    tables = [np.bincount(cells, weights=each, minlength=count * count) for each in weights]
    return np.reshape(tables, (-1, count, count))


def _accuracy(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _mean((predictions.target == predictions.chosen).astype(float), weights)


def _balanced_accuracy(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """The mean recall of the classes that there are."""
    table = _confusion(predictions, weights)
    recalls = _divide(np.diagonal(table, axis1=1, axis2=2), table.sum(axis=2), np.nan)
    return np.nanmean(recalls, axis=1)


def _precision(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _average(predictions, weights, _class_precision)


def _recall(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _average(predictions, weights, _class_recall)


def _f1(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _average(predictions, weights, _class_f1)


def _f1_macro(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """The mean over the classes that there are or were chosen."""
    table = _confusion(predictions, weights)
    there = table.sum(axis=1) + table.sum(axis=2) > 0
    return np.nanmean(np.where(there, _class_f1(table), np.nan), axis=1)


def _average(
    predictions: Predictions, weights: np.ndarray, of_classes: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """Of the positive class if there are two; else the mean over the classes by their weights."""
    table = _confusion(predictions, weights)
    values = of_classes(table)
    if predictions.problem_type == "binary_classification":
        return values[:, predictions.positive]
    support = table.sum(axis=2)
    return (values * support).sum(axis=1) / support.sum(axis=1)


def _class_precision(table: np.ndarray) -> np.ndarray:
    return _divide(table.diagonal(axis1=1, axis2=2), table.sum(axis=1), 0.0)


def _class_recall(table: np.ndarray) -> np.ndarray:
    return _divide(table.diagonal(axis1=1, axis2=2), table.sum(axis=2), 0.0)


def _class_f1(table: np.ndarray) -> np.ndarray:
    return _divide(2 * table.diagonal(axis1=1, axis2=2), table.sum(axis=1) + table.sum(axis=2), 0.0)


def _matthews(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004."""
    table = _confusion(predictions, weights)
    total = table.sum(axis=(1, 2))
    actual, chosen = table.sum(axis=2), table.sum(axis=1)
    right = np.trace(table, axis1=1, axis2=2)
    spread = (total**2 - (chosen**2).sum(axis=1)) * (total**2 - (actual**2).sum(axis=1))
    return _divide(right * total - (actual * chosen).sum(axis=1), np.sqrt(np.maximum(spread, 0)), 0.0)


def _log_loss(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    likely = np.take_along_axis(predictions.scores, predictions.target[:, None], axis=1)[:, 0]
    return _mean(-np.log(np.maximum(likely, np.finfo(float).eps)), weights)


def _brier(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """Of the positive class: the half of what is summed over both."""
    return _mean((predictions.positive_scores - predictions.positives) ** 2, weights)


def _mse(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _mean((predictions.scores - predictions.target) ** 2, weights)


def _rmse(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _mse(predictions, weights) ** 0.5


def _mae(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    return _mean(abs(predictions.scores - predictions.target), weights)


def _r2(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    # Around the mean, since the difference of two large sums of squares loses its digits.
    centered = predictions.target - predictions.target.mean()
    spread = _mean(centered**2, weights) - _mean(centered, weights) ** 2
    return 1 - _divide(_mse(predictions, weights), spread, np.nan)


def _mape(predictions: Predictions, weights: np.ndarray) -> np.ndarray:
    """A share, not per cent."""
    size = np.maximum(abs(predictions.target), np.finfo(float).eps)
    return _mean(abs(predictions.scores - predictions.target) / size, weights)


_FUNCTIONS: dict[ProblemType, dict[str, Metric]] = {
    "binary_classification": {
        "roc_auc": _roc_auc,
        "average_precision": _average_precision,
        "accuracy": _accuracy,
        "f1": _f1,
        "precision": _precision,
        "recall": _recall,
        "log_loss": _log_loss,
        "brier_score": _brier,
        "balanced_accuracy": _balanced_accuracy,
        "matthews_corrcoef": _matthews,
    },
    "multiclass_classification": {
        "accuracy": _accuracy,
        "f1_macro": _f1_macro,
        "f1": _f1,
        "precision": _precision,
        "recall": _recall,
        "log_loss": _log_loss,
        "roc_auc": _roc_auc_each,
        "balanced_accuracy": _balanced_accuracy,
    },
    "regression": {"rmse": _rmse, "mse": _mse, "mae": _mae, "r2": _r2, "mape": _mape},
}
