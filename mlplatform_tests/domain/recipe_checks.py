"""What every recipe must be able to do, so that the platform can run it: call `check_recipe` on yours.

A plugin's test needs no more than

    @pytest.mark.parametrize("check", CHECKS)
    @pytest.mark.parametrize("family", FAMILIES)
    def test_my_recipe(check, family):
        CHECKS[check](RECIPE, FAMILIES[family])
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest

from mlplatform.domain.families import Family
from mlplatform.domain.lags import lag_matrix
from mlplatform.domain.model import Model, ModelError
from mlplatform.domain.recipe import Recipe

FAMILIES = {
    "seasonal": Family(lags=28, season=12),
    "not seasonal": Family(lags=15),
    "one lag": Family(lags=1),
}
ROWS = 160
STEPS = 14


def series(rows: int = ROWS, seed: int = 0) -> np.ndarray:
    """A trend with a season and noise."""
    time = np.arange(rows)
    noise = np.random.default_rng(seed).normal(size=rows)
    return 100 + 0.1 * time + 5 * np.sin(2 * np.pi * time / 12) + noise


def fold(model: Model, values: np.ndarray, family: Family, start: int = 0, end: int | None = None):
    """Lets the model learn the values from `start` to `end`, and returns what it said of each."""
    lags, available = lag_matrix([], values, family.lags)
    rows = slice(start, end)
    return model.fold(np.arange(len(values))[rows], lags[rows], available[rows], values[rows])


def learned(recipe: Recipe, family: Family, values: np.ndarray) -> Model:
    model = Model(recipe, family)
    fold(model, values, family)
    return model


def what_it_says(model: Model) -> tuple[object, ...]:
    """All that can be seen of a model's state."""
    drifts = model.drift.detections if model.drift else 0
    return model.next_offset, model.forecast(STEPS), repr(model.metrics.summary()), drifts


def predicts_before_it_learns(recipe: Recipe, family: Family) -> None:
    """Changing a value and all after it changes no prediction up to and including its own."""
    values = series()
    before = fold(Model(recipe, family), values, family)
    for at in (0, 1, 20, 100):
        other = np.concatenate([values[:at], 1_000 * series(seed=1)[at:]])
        after = fold(Model(recipe, family), other, family)
        assert after[: at + 1].tobytes() == before[: at + 1].tobytes(), at


def says_the_same_again(recipe: Recipe, family: Family) -> None:
    """Two models that learn the same say the same, bit for bit."""
    first, second = (Model(recipe, family) for _ in range(2))
    assert fold(first, series(), family).tobytes() == fold(second, series(), family).tobytes()
    assert what_it_says(first) == what_it_says(second)


def learns_in_any_batches(recipe: Recipe, family: Family) -> None:
    """How a replay is cut into runs changes no bit of predictions, forecasts, metrics and drifts."""
    values = series()
    whole = Model(recipe, family)
    expected = fold(whole, values, family)
    cuts = np.sort(np.random.default_rng(0).choice(np.arange(1, ROWS), 12, replace=False))
    for edges in (range(ROWS + 1), [0, *cuts.tolist(), ROWS]):
        parts, predictions = Model(recipe, family), []
        for start, end in pairwise(edges):
            predictions += fold(parts, values, family, start, end).tolist()
        assert np.array(predictions).tobytes() == expected.tobytes()
        assert what_it_says(parts) == what_it_says(whole)


def goes_on_after_a_restart(recipe: Recipe, family: Family) -> None:
    """A model that was pickled and loaded goes on as if it had not been, bit for bit."""
    values = series()
    whole = Model(recipe, family)
    expected = fold(whole, values, family)
    for cut in (0, 1, 14, 100, ROWS - 1):
        model = Model(recipe, family)
        if cut:
            fold(model, values, family, 0, cut)
        loaded = pickle.loads(pickle.dumps(model, protocol=5))  # noqa: S301
        assert what_it_says(loaded) == what_it_says(model)
        assert fold(loaded, values, family, cut).tobytes() == expected[cut:].tobytes(), cut
        assert what_it_says(loaded) == what_it_says(whole)


def refuses_what_does_not_follow(recipe: Recipe, family: Family) -> None:
    """A gap and a repetition are refused, and the model is as it was."""
    values = series()
    model, undisturbed = Model(recipe, family), Model(recipe, family)
    fold(model, values, family, 0, 50)
    fold(undisturbed, values, family, 0, 50)
    for start, end in ((51, 60), (49, 60), (0, 50)):
        with pytest.raises(ModelError, match="expected offset 50"):
            fold(model, values, family, start, end)
    assert fold(model, values, family, 50).tobytes() == fold(undisturbed, values, family, 50).tobytes()


def says_numbers_from_the_start(recipe: Recipe, family: Family) -> None:
    """Predictions and forecasts are finite after any number of observations, also none."""
    model = Model(recipe, family)
    for row in range(40):
        forecasts = model.forecast(STEPS)
        assert len(forecasts) == STEPS
        assert all(type(value) is float for value in forecasts)
        assert np.isfinite(forecasts).all()
        assert np.isfinite(fold(model, series(), family, row, row + 1)).all()


def forecasts_change_nothing(recipe: Recipe, family: Family) -> None:
    """The first step does not depend on how many are asked for, and asking leaves no trace."""
    model, unasked = Model(recipe, family), Model(recipe, family)
    fold(model, series(), family, 0, 100)
    fold(unasked, series(), family, 0, 100)
    assert model.forecast(1) == model.forecast(5)[:1]
    assert model.forecast(5) == model.forecast(5)
    assert model.forecast(0) == []
    assert fold(model, series(), family, 100).tobytes() == fold(unasked, series(), family, 100).tobytes()


def forecasts_what_it_predicts(recipe: Recipe, family: Family) -> None:
    """The forecast of the next observation is the prediction that is then made of it."""
    model = Model(recipe, family)
    for row in range(60):
        (forecast,) = model.forecast(1)
        (prediction,) = fold(model, series(), family, row, row + 1)
        assert forecast == pytest.approx(prediction, rel=1e-12, abs=1e-12), row


def bears_any_series(recipe: Recipe, family: Family) -> None:
    """Series without any change, of any size and with a jump are learned without a number that is none."""
    jump = series()
    jump[80:] += 1e6
    spike = series()
    spike[5] = 1e30
    rounds = np.tile([1.0, -1.0], ROWS // 2)
    for values in (
        *[np.zeros(ROWS), np.full(ROWS, 7.0), np.arange(float(ROWS)), rounds, jump, spike],
        *[series() * 1e-12, series() * 1e12, -series()],
    ):
        model = Model(recipe, family)
        assert np.isfinite(fold(model, values, family)).all()
        assert np.isfinite(model.forecast(STEPS)).all()
        assert np.isfinite(model.metrics.summary()["mse"])


def has_a_bounded_state(recipe: Recipe, family: Family) -> None:
    """The state does not grow with the number of observations."""
    values, model = series(6_000), Model(recipe, family)
    sizes = []
    for start in (0, 3_000):
        fold(model, values, family, start, start + 3_000)
        sizes.append(len(pickle.dumps(model, protocol=5)))
    # ADWIN's buckets, which watch every model for drift, grow with the logarithm.
    assert sizes[1] - sizes[0] <= max(0.05 * sizes[0], 512)


CHECKS: dict[str, Callable[[Recipe, Family], None]] = {
    check.__name__: check
    for check in (
        predicts_before_it_learns,
        says_the_same_again,
        learns_in_any_batches,
        goes_on_after_a_restart,
        refuses_what_does_not_follow,
        says_numbers_from_the_start,
        forecasts_change_nothing,
        forecasts_what_it_predicts,
        bears_any_series,
        has_a_bounded_state,
    )
}


def check_recipe(recipe: Recipe) -> None:
    """Every check in every kind of family; raises AssertionError with the check's name in the traceback."""
    for check in CHECKS.values():
        for family in FAMILIES.values():
            check(recipe, family)
