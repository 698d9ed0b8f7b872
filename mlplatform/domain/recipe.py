"""Recipes: what a model is before it has learned."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mlplatform.domain.differences import Differences
from mlplatform.domain.estimators import Estimator
from mlplatform.domain.families import Family

Difference = Literal["none", "previous", "season", "both"]


@dataclass(frozen=True)
class Recipe:
    """Lags, transform of the target and estimator of a model, in one place.

    `difference` says what the estimator learns: the level itself (`none`), its change from the
    previous observation, from a season ago, or both after each other; without a season in the
    family, `season` means `none` and `both` means `previous`. The transform is undone in every
    prediction. `estimator` makes a new estimator for a season (None: there is none), and does its
    heavy imports inside; scaling is the estimator's affair. `lags` caps the differenced lags that it
    reads (all that there are, unless set). `libraries` are the distributions whose version a snapshot
    depends on.
    """

    name: str
    description: str
    estimator: Callable[[int | None], Estimator]
    difference: Difference = "both"
    lags: int | None = None
    libraries: tuple[str, ...] = ("river",)
    baseline: bool = False

    def differences(self, family: Family) -> Differences:
        season = () if family.season is None else (family.season,)
        periods = {"none": (), "previous": (1,), "season": season, "both": (1, *season)}[self.difference]
        if not self.baseline and sum(periods) == family.lags:
            # The difference would take the only lag, and leave the estimator nothing to read.
            periods = ()
        return Differences(periods)

    @property
    def digest(self) -> str:
        """Names the recipe by its content (12 hexadecimal digits): its fields and its estimator's source."""
        content = (self.name, self.difference, self.lags, inspect.getsource(self.estimator))
        return hashlib.sha256(repr(content).encode()).hexdigest()[:12]
