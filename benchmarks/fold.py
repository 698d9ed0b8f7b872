"""One series through the four seed models: our fold against the bare River loop, on one core."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from benchmarks import river_loop
from benchmarks.data import FAMILIES, one_series
from benchmarks.measure import Row, Session, alternate, say
from mlplatform.domain.model import ModelSet
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes

OBSERVATIONS = 20_000
# River's forest and its approximate neighbours take milliseconds a row.
FEW_OBSERVATIONS = 5_000
# The fast models need more rounds; the slow ones differ by far more than the noise.
ROUNDS = {"linear": 5, "bagging": 3}
BOUNDS = {"knn": ", both exact over 1,000 rows", "amf": ", both within 2,000 rows"}


def measure(session: Session) -> Iterator[Row]:
    """A fold predicts, learns, keeps rolling metrics and watches for drift; the loop has one MAE.

    Both sides start from arrays; River's are differenced beforehand, ours in the fold. Making River's
    dictionaries is part of the loop (`stream.iter_array`), a fifth of what a
    linear model takes; the linear model is therefore also measured against dictionaries ready made.
    """
    recipes, few = load_recipes(), OBSERVATIONS if session.full else FEW_OBSERVATIONS
    ours = other = 0.0
    for name, regressor in river_loop.regressors(recipes).items():
        count = few if name == "amf" else OBSERVATIONS
        row = _against_river(f"{name}{BOUNDS.get(name, '')}", recipes[name], regressor, count, 1.1)
        yield row
        ours, other = ours + row.ours, other + (row.other or 0.0)
    yield Row("an observation, the four models together", ours, other, "µs", 1.1)
    linear = recipes["linear"]
    regressor = river_loop.regressors(recipes)["linear"]
    yield _against_river(
        "linear, River's dictionaries ready made", linear, regressor, OBSERVATIONS, 1.1, list
    )
    knn = recipes["knn"]
    yield _against_river("knn, exact against River's default (SWINN)", knn, river_loop.swinn, few, 0.5)


def _against_river(
    what: str,
    recipe: Recipe,
    regressor: Callable[[], river_loop.Regressor],
    count: int,
    goal: float,
    prepare: Callable[[river_loop.Rows], river_loop.Rows] | None = None,
) -> Row:
    """`prepare` makes of River's rows, before the clock starts, what is looped over."""
    say(f"{what}: {count:,} observations of one series, warm")
    rows = one_series(count)
    features, targets = river_loop.differenced(rows, recipe)
    prepared = prepare(river_loop.named(features, targets)) if prepare else None
    errors = {}

    def ours() -> None:
        models = ModelSet((recipe,), FAMILIES)
        models.fold(rows)
        errors["ours"] = models.models[recipe.name, "series"].metrics.summary()["mae"]

    def river() -> None:
        errors["river"] = river_loop.run(regressor(), prepared or river_loop.named(features, targets))

    ModelSet((recipe,), FAMILIES).fold(one_series(100))
    river_loop.run(regressor(), river_loop.named(features[:100], targets[:100]))
    times = alternate({"ours": ours, "river": river}, ROUNDS.get(recipe.name, 1))
    say(f"mean absolute error: ours {errors['ours']:.4g}, river {errors['river']:.4g}")
    each = {side: 1e6 * time / count for side, time in times.items()}
    return Row(f"an observation of {count:,}, {what}", each["ours"], each["river"], "µs", goal)
