"""The YAML type that declares an online-learning graph."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Literal

import dagster as dg
from pydantic import Field

from mlplatform.components.online_learning.automation import online_learning_job, poll_sensor
from mlplatform.components.online_learning.champions import champion_asset
from mlplatform.components.online_learning.features import feature_asset
from mlplatform.components.online_learning.graph import OnlineGraph
from mlplatform.components.online_learning.ingestion import ingestion_asset
from mlplatform.components.online_learning.models import model_asset
from mlplatform.components.online_learning.services import service_assets, service_sensor
from mlplatform.domain.families import DEFAULT_LAGS, AbsurdityBand, Families, Family
from mlplatform.domain.recipe import Recipe
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.sources.price import COINBASE, PriceSource
from mlplatform.io.sources.push import PushSource
from mlplatform.io.sources.replay import ReplaySource
from mlplatform.settings import Settings


class SourceModel(dg.Model, dg.Resolvable):
    """Where observations come from.

    `replay` reads a CSV file (`path`, relative to this file), `price` a live price of `currency`,
    `push` what `mlplatform push` puts into the inbox.
    """

    name: str
    type: Literal["replay", "price", "push"]
    enabled: bool = True
    path: str | None = None
    series_id: str = ""
    last: int | None = Field(default=None, ge=1, description="Only the newest so many observations.")
    currency: str = ""
    endpoint_url: str = COINBASE


class FamilyModel(dg.Model, dg.Resolvable):
    """Series that are treated alike; see `mlplatform.domain.families.Family`."""

    name: str
    series: list[str]
    lags: int = DEFAULT_LAGS
    season: int | None = None
    absurd_beyond: float = Field(
        default=10.0, gt=0, description="Width of the band, in ranges of the last values."
    )


class OnlineLearning(dg.Component, dg.Model, dg.Resolvable):
    """Sources, families of series and the models that learn them, as one asset graph.

    `models` names the recipes that learn; all that are installed unless it is given. Baselines are
    always there.
    """

    sources: list[SourceModel]
    families: list[FamilyModel] = []
    models: list[str] | None = None
    owners: list[str] = ["team:ml-platform"]
    shards: int = Field(default=1, ge=1)
    limit: int = Field(default=100_000, ge=1, description="At most so many submissions a run and source.")

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        graph = self.graph(context.path)
        models = [model_asset(graph, name, recipes) for name, recipes in graph.steps.items()]
        return dg.Definitions(
            assets=[
                ingestion_asset(graph),
                feature_asset(graph),
                *models,
                champion_asset(graph),
                *service_assets(graph),
            ],
            jobs=[online_learning_job()],
            sensors=[poll_sensor(graph), service_sensor(graph)],
        )

    def graph(self, directory: Path) -> OnlineGraph:
        """The declaration resolved; paths are relative to `directory`."""
        settings = Settings.load()
        return OnlineGraph(
            sources={
                source.name: partial(_make_source, source, directory, settings.replay_primed)
                for source in self.sources
            },
            active=settings.sources or tuple(source.name for source in self.sources if source.enabled),
            families=Families(tuple(_family(family) for family in self.families)),
            recipes=self._recipes(),
            owners=tuple(self.owners),
            shards=self.shards,
            limit=self.limit,
        )

    def _recipes(self) -> dict[str, Recipe]:
        recipes = load_recipes()
        unknown = set(self.models or []) - set(recipes)
        if unknown:
            raise ValueError(f"no recipe {', '.join(sorted(unknown))}; there are {', '.join(recipes)}")
        return {
            name: recipe
            for name, recipe in recipes.items()
            if recipe.baseline or self.models is None or name in self.models
        }


def _make_source(source: SourceModel, directory: Path, primed: float, store):
    match source.type:
        case "replay":
            path = directory / (source.path or "")
            return ReplaySource(source.name, path, source.series_id, source.last, primed)
        case "price":
            return PriceSource(source.name, source.currency, source.endpoint_url)
        case "push":
            return PushSource(source.name, store)


def _family(family: FamilyModel) -> Family:
    band = AbsurdityBand(width=family.absurd_beyond)
    return Family(family.name, tuple(family.series), family.lags, family.season, band)
