"""The baselines: a transform of the target whose change nobody learns."""

from mlplatform.domain.estimators import Zero
from mlplatform.domain.recipe import Recipe

RECIPES = (
    Recipe("naive", "The last value", Zero, "previous", libraries=(), baseline=True),
    Recipe("seasonal_naive", "The value a season ago", Zero, "season", libraries=(), baseline=True),
    Recipe(
        "airline_naive",
        "The last value and its change a season ago",
        Zero,
        "both",
        libraries=(),
        baseline=True,
    ),
)
