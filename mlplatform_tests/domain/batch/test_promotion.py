from __future__ import annotations

import numpy as np
import pytest

from mlplatform.domain.batch.metrics import MetricError, Predictions
from mlplatform.domain.batch.promotion import contest

ROWS = 400


def says(noise: float, seed: int, rows: int = ROWS) -> Predictions:
    """A model that is right up to noise, about the same rows for every seed."""
    target = np.arange(rows) % 2
    logit = 2 * target - 1 + np.random.default_rng(seed).normal(0, noise, rows)
    positive = 1 / (1 + np.exp(-logit))
    return Predictions("binary_classification", target, np.column_stack([1 - positive, positive]))


def numbers(noise: float, seed: int) -> Predictions:
    target = np.arange(ROWS, dtype=float)
    return Predictions("regression", target, target + np.random.default_rng(seed).normal(0, noise, ROWS))


def test_without_a_champion_the_first_model_is_promoted() -> None:
    outcome = contest("roc_auc", says(1, 1), None)
    assert outcome.promoted
    assert outcome.champion is None
    assert "no champion yet" in outcome.reason


def test_a_better_challenger_is_promoted() -> None:
    outcome = contest("roc_auc", says(1, 1), says(4, 2))
    assert outcome.promoted
    assert outcome.difference is not None
    assert outcome.difference > 0
    assert "is at least as good as the champion" in outcome.reason


def test_a_clearly_worse_challenger_is_not() -> None:
    outcome = contest("roc_auc", says(4, 1), says(1, 2))
    assert not outcome.promoted
    assert outcome.difference == pytest.approx(outcome.challenger - (outcome.champion or 0))
    assert "is worse than the champion: roc_auc 0." in outcome.reason
    assert "400 rows" in outcome.reason


def test_one_that_is_worse_by_chance_only_is_promoted() -> None:
    """Within a standard error, the model that knows newer data is taken."""
    pairs = [contest("roc_auc", says(2, seed), says(2, seed + 100)) for seed in range(20)]
    worse = [each for each in pairs if each.difference is not None and each.difference < 0]
    assert worse
    assert any(each.promoted for each in worse)
    for each in worse:
        assert each.difference is not None
        assert each.standard_error is not None
        assert each.promoted == (each.difference >= -each.standard_error)


@pytest.mark.parametrize(("metric", "sign"), [("rmse", 1), ("r2", 1), ("mae", 1)])
def test_lower_errors_win(metric: str, sign: int) -> None:
    assert contest(metric, numbers(1, 1), numbers(5, 2)).promoted
    outcome = contest(metric, numbers(5, 1), numbers(1, 2))
    assert not outcome.promoted
    assert outcome.difference is not None
    assert sign * outcome.difference < 0


def test_a_model_draws_with_itself_and_is_promoted() -> None:
    outcome = contest("log_loss", says(1, 1), says(1, 1))
    assert outcome.promoted
    assert (outcome.difference, outcome.standard_error) == (0, 0)


def test_pairing_finds_differences_that_two_intervals_hide() -> None:
    """Both models are wrong on the same hard rows; one of them is a little worse on all."""
    champion = says(1, 1)
    scores = np.clip(champion.scores[:, 1] - 0.02 * (2 * champion.target - 1), 0.001, 0.999)
    worse = Predictions("binary_classification", champion.target, np.column_stack([1 - scores, scores]))
    outcome = contest("brier_score", worse, champion)
    assert not outcome.promoted
    assert outcome.standard_error is not None
    assert outcome.difference is not None
    assert -outcome.difference > 5 * outcome.standard_error


def test_the_outcome_is_the_same_again() -> None:
    assert contest("f1", says(2, 1), says(2, 2)) == contest("f1", says(2, 1), says(2, 2))


def test_other_rows_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match="not evaluated on the same rows"):
        contest("roc_auc", says(1, 1), says(1, 1, rows=10))


def test_one_class_only_is_an_error() -> None:
    only = says(1, 1).only(np.arange(0, ROWS, 2))
    with pytest.raises(MetricError, match="two classes"):
        contest("roc_auc", only, None)
