"""The baselines: a transform of the target whose change nobody learns."""

from mlplatform.domain.estimators import Zero
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> Zero:
    return Zero()


RECIPES = tuple(
    Recipe(name, description, estimator, difference, libraries=(), baseline=True)
    for name, description, difference in (
        ("naive", "The last value", "previous"),
        ("seasonal_naive", "The value a season ago", "season"),
        ("airline_naive", "The last value and its change a season ago", "both"),
    )
)
