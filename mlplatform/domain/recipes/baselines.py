"""The baselines: a transform of the target whose change nobody learns."""

from mlplatform.domain.estimators import Zero
from mlplatform.domain.recipe import Difference, Recipe


def estimator(season: int | None) -> Zero:
    return Zero()


def _baseline(name: str, description: str, difference: Difference) -> Recipe:
    return Recipe(name, description, estimator, difference, libraries=(), baseline=True)


RECIPES = (
    _baseline("naive", "The last value", "previous"),
    _baseline("seasonal_naive", "The value a season ago", "season"),
    _baseline("airline_naive", "The last value and its change a season ago", "both"),
)
