"""Feature selection: which columns are worth learning from, by methods that follow each other."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from mlplatform.domain.batch.features import Feature
from mlplatform.domain.batch.pipeline import ProblemType, SelectionMethod
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd

SEED = 42
MAX_CORRELATION = 0.95
CUMULATED_IMPORTANCE = 0.95


class SelectionError(PlatformError):
    """No feature is left, or a method needs a package that is not installed; the message says which."""


@dataclass(frozen=True)
class Selection:
    """`columns` in the table's order; `scores` by method and column; `reasons` why the others went."""

    columns: tuple[str, ...]
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    reasons: dict[str, str] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        return {"columns": list(self.columns), "scores": self.scores, "reasons": self.reasons}


def missing_packages(methods: Sequence[SelectionMethod]) -> list[str]:
    """What must be installed for the methods, and is not; imports nothing."""
    wanted = {"lightgbm"} if any(method.name == "lgbm_importance" for method in methods) else set()
    return sorted(name for name in wanted if importlib.util.find_spec(name) is None)


def select(
    frame: pd.DataFrame,
    features: Sequence[Feature],
    target: np.ndarray,
    problem_type: ProblemType,
    methods: Sequence[SelectionMethod],
) -> Selection:
    """Applies the methods in order, each to what the ones before have left.

    Args:
        frame: (n, columns) canonical features (`Preparation.features`), `features` describing them.
        target: (n,) class numbers, or numbers for regression.

    Raises:
        SelectionError: nothing is left, or a package is missing.
    """
    for name in missing_packages(methods):
        raise SelectionError(
            f"feature selection by lgbm_importance needs {name}: pip install {name}, or take mutual_info"
        )
    kinds = {feature.name: feature.kind for feature in features}
    left = [feature.name for feature in features]
    scores: dict[str, dict[str, float]] = {}
    reasons: dict[str, str] = {}
    for method in methods:
        if not left:
            break
        columns: Any = frame[left]
        data = _Data(_numbers(columns), target, problem_type, [kinds[name] == "category" for name in left])
        each, kept, why = _METHODS[method.name](data, method)
        scores[method.name] = {name: float(score) for name, score in zip(left, each, strict=True)}
        for number, name in enumerate(left):
            if not kept[number]:
                reasons[name] = f"{method.name} {why(number, left)}"
        left = [name for number, name in enumerate(left) if kept[number]]
    if not left:
        listed = "; ".join(f"{name}: {reason}" for name, reason in sorted(reasons.items())[:5])
        raise SelectionError(f"feature selection leaves no feature ({listed}): use lower thresholds")
    return Selection(tuple(left), scores, reasons)


@dataclass(frozen=True)
class _Data:
    """`values` (n, columns) floats without gaps; `discrete` tells which columns are categories."""

    values: np.ndarray
    target: np.ndarray
    problem_type: ProblemType
    discrete: list[bool]


# Scores, which columns are kept, and why one with a number is not.
_Outcome = tuple["np.ndarray", "np.ndarray", Callable[[int, Sequence[str]], str]]


def _numbers(frame: pd.DataFrame) -> np.ndarray:
    """Medians in gaps; a category's levels as numbers by how often they are, a gap being a level."""
    import numpy as np

    values = np.empty(frame.shape)
    for number, name in enumerate(frame.columns):
        column: Any = frame[name]
        if column.dtype == object:
            ranks = {level: rank for rank, level in enumerate(column.value_counts().sort_index().index)}
            values[:, number] = column.map(ranks).fillna(-1)
        else:
            values[:, number] = column.fillna(column.median())
    return values


def _variance(data: _Data, method: SelectionMethod) -> _Outcome:
    """Columns whose variance is above the threshold (0 unless given)."""
    import numpy as np

    threshold = method.threshold or 0.0
    variances = data.values.var(axis=0)
    varies = _varies(data.values)
    # The numbers of a category's levels have no variance that means anything.
    kept = np.where(data.discrete, varies, varies & (variances > threshold))
    return variances, kept, lambda number, _: f"{variances[number]:.4g} is not above {threshold:g}"


def _correlation(data: _Data, method: SelectionMethod) -> _Outcome:
    """Of two columns that correlate above the threshold, the one that says more of the target stays."""
    import numpy as np

    threshold = MAX_CORRELATION if method.threshold is None else method.threshold
    between = np.nan_to_num(abs(_correlations(data.values, data.values)))
    relevance = np.nan_to_num(abs(_correlations(data.values, _indicators(data)))).max(axis=1)
    kept = np.zeros(len(relevance), dtype=bool)
    because = np.full(len(relevance), -1)
    for number in np.argsort(-relevance, kind="stable"):
        # The correlation of the numbers of a category's levels means nothing.
        rivals = kept & (between[number] > threshold) & ~np.array(data.discrete)
        if rivals.any() and not data.discrete[number]:
            because[number] = int(np.flatnonzero(rivals)[0])
        else:
            kept[number] = True

    def why(number: int, names: Sequence[str]) -> str:
        other = because[number]
        return f"with {names[other]} is {between[number, other]:.3f}, above {threshold:g}"

    return relevance, kept, why


def _indicators(data: _Data) -> np.ndarray:
    """(n, k) the target itself, or one column for each class."""
    import numpy as np

    if data.problem_type == "regression":
        return data.target[:, None].astype(float)
    return (data.target[:, None] == np.unique(data.target)).astype(float)


def _correlations(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(columns, columns) Pearson's, NaN for a constant column."""
    import numpy as np

    with np.errstate(invalid="ignore", divide="ignore"):
        normal = [(each - each.mean(axis=0)) / each.std(axis=0) for each in (first, second)]
    return normal[0].T @ normal[1] / len(first)


def _mutual_information(data: _Data, method: SelectionMethod) -> _Outcome:
    """Columns whose mutual information with the target, in nats, is above the threshold (0 unless given);
    the best `k` of them, if given. Estimated from nearest neighbours (Kraskov and others, 2004; Ross, 2014).
    """
    from sklearn.feature_selection import mutual_info_classif, mutual_info_regression

    regression = data.problem_type == "regression"
    estimate: Any = mutual_info_regression if regression else mutual_info_classif
    scores = estimate(data.values, data.target, discrete_features=data.discrete, random_state=SEED)
    # The estimate shakes the values a little, and so finds something in a constant.
    scores *= _varies(data.values)
    threshold = method.threshold or 0.0
    kept = (scores > threshold) & _best(scores, method.k)
    best = f"is not among the best {method.k}" if method.k else ""

    def why(number: int, _: Sequence[str]) -> str:
        return f"{scores[number]:.4g} " + (
            best if scores[number] > threshold else f"is not above {threshold:g}"
        )

    return scores, kept, why


def _lightgbm(data: _Data, method: SelectionMethod) -> _Outcome:
    """The most important columns, by gain, that together have the threshold's share of the importance (0.95
    unless given); the best `k` of them, if given.
    """
    import importlib

    import numpy as np

    # Not a dependency of the platform: `missing_packages` has told if it is not there.
    lightgbm = importlib.import_module("lightgbm")
    kind = lightgbm.LGBMRegressor if data.problem_type == "regression" else lightgbm.LGBMClassifier
    model = kind(
        random_state=SEED, deterministic=True, force_row_wise=True, importance_type="gain", verbose=-1
    )
    discrete = [number for number, is_discrete in enumerate(data.discrete) if is_discrete]
    model.fit(data.values, data.target, categorical_feature=discrete)
    total = model.feature_importances_.sum()
    scores = model.feature_importances_ / total if total else np.zeros(len(data.discrete))
    threshold = CUMULATED_IMPORTANCE if method.threshold is None else method.threshold
    order = np.argsort(-scores, kind="stable")
    before = np.empty(len(scores))
    before[order] = np.cumsum(scores[order]) - scores[order]
    kept = (scores > 0) & (before < threshold) & _best(scores, method.k)
    return scores, kept, lambda number, _: f"{scores[number]:.4g} is too low"


def _varies(values: np.ndarray) -> np.ndarray:
    """(columns,) whether a column has two values; rounding may leave a constant one a little variance."""
    return (values != values[:1]).any(axis=0)


def _best(scores: np.ndarray, count: int | None) -> np.ndarray:
    import numpy as np

    best = np.zeros(len(scores), dtype=bool)
    best[np.argsort(-scores, kind="stable")[:count]] = True
    return best


_METHODS: dict[str, Callable[[_Data, SelectionMethod], _Outcome]] = {
    "variance_threshold": _variance,
    "correlation": _correlation,
    "mutual_info": _mutual_information,
    "lgbm_importance": _lightgbm,
}
