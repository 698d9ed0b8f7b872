"""Aggregated Mondrian forest."""

from mlplatform.domain.mondrian import MondrianForest
from mlplatform.domain.recipe import Recipe


def estimator(season: int | None) -> MondrianForest:
    return MondrianForest(trees=10, seed=1)


RECIPES = (Recipe("amf", "Aggregated Mondrian forest, on differences", estimator, libraries=("numba",)),)
