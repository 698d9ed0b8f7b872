"""Whether a challenger takes the champion's place."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from mlplatform.domain.batch.metrics import (
    LOWER_IS_BETTER,
    RESAMPLES,
    SEED,
    Predictions,
    evaluate,
    resampled,
    weighted,
)


@dataclass(frozen=True)
class Promotion:
    """The outcome, with the values of the metric on the same rows; `difference` is positive where the
    challenger is the better one. `champion`, `difference` and `standard_error` are None without a champion.
    """

    promoted: bool
    metric: str
    challenger: float
    reason: str
    champion: float | None = None
    difference: float | None = None
    standard_error: float | None = None

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def contest(
    metric: str,
    challenger: Predictions,
    champion: Predictions | None,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Promotion:
    """Compares what both say of the same rows. The challenger, which knows newer data, is promoted unless
    the champion is better by more than one standard error of the difference; that error is estimated from
    bootstrap resamples of the rows, each used for both models (a paired bootstrap), so that what makes a
    row hard for both does not count.

    Raises:
        MetricError: the metric has no value for these rows.
        ValueError: the two were not given the same rows.
    """
    ours = evaluate([metric], challenger)[metric]
    if champion is None:
        return Promotion(True, metric, ours, f"there is no champion yet; {metric} is {ours:.4f}")
    if not np.array_equal(challenger.target, champion.target):
        raise ValueError("challenger and champion were not evaluated on the same rows")
    theirs = evaluate([metric], champion)[metric]
    sign = -1.0 if metric in LOWER_IS_BETTER else 1.0
    differences = np.empty(resamples)
    for rows, weights in resampled(challenger.rows, resamples, seed):
        differences[rows] = sign * (
            weighted(metric, challenger, weights) - weighted(metric, champion, weights)
        )
    difference, error = sign * (ours - theirs), float(np.nanstd(differences, ddof=1))
    promoted = difference >= -error
    relation = "is not clearly worse than" if difference < 0 else "is at least as good as"
    verdict = relation if promoted else "is worse than"
    reason = (
        f"the challenger {verdict} the champion: {metric} {ours:.4f} against {theirs:.4f} on the same"
        f" {challenger.rows:,} rows, a difference of {difference:+.4f} with a standard error of {error:.4f}"
    )
    return Promotion(promoted, metric, ours, reason, theirs, difference, error)
