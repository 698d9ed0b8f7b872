"""The recipes there are: each module here, and each entry point of the group `mlplatform.recipes`."""

from __future__ import annotations

import importlib
import pkgutil
import re
from importlib.metadata import entry_points

from mlplatform.domain.recipe import Recipe

ENTRY_POINTS = "mlplatform.recipes"
# Steps that are no recipe have these names.
RESERVED = {"baselines", "champion", "lag_features", "observations", "quarantine"}


def load_recipes() -> dict[str, Recipe]:
    """Every recipe by its name: baselines first, then in the order of their names.

    Raises:
        ValueError: two recipes have one name, a name is not fit, or an entry point is not a `Recipe`.
    """
    found = [
        recipe
        for module in pkgutil.iter_modules(__path__)
        for recipe in importlib.import_module(f"{__name__}.{module.name}").RECIPES
    ]
    for entry_point in entry_points(group=ENTRY_POINTS):
        recipe = entry_point.load()
        if not isinstance(recipe, Recipe):
            raise ValueError(f"entry point {entry_point.value} of {ENTRY_POINTS} is not a Recipe: {recipe!r}")
        found.append(recipe)
    recipes: dict[str, Recipe] = {}
    for recipe in found:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", recipe.name) or recipe.name in RESERVED:
            raise ValueError(f"{recipe.name!r} cannot name a recipe: use other small letters, digits and _")
    for recipe in sorted(found, key=lambda recipe: (not recipe.baseline, recipe.name)):
        if recipe.name in recipes:
            raise ValueError(f"two recipes have the name {recipe.name!r}; give one another name")
        recipes[recipe.name] = recipe
    return recipes
