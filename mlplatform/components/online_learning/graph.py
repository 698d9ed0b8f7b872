"""What the steps of one online-learning graph share."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import dagster as dg

from mlplatform.domain.families import Families
from mlplatform.domain.recipe import Recipe
from mlplatform.io.leases import Lease, LeaseHeld
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.sources import Source
from mlplatform.resources.stores import Stores

SHARD_TAG = "mlplatform/shard"
BASELINES = "baselines"
CHAMPION = "champion"

# A commit that lost against another writer is made again from what that writer left.
RETRY = dg.RetryPolicy(max_retries=2, delay=1)


@dataclass(frozen=True)
class OnlineGraph:
    """The declaration of a graph, resolved.

    `sources` make a source when a run first asks; `active` are the names of those that are read
    unless a run says otherwise. `limit` bounds what one run takes from each source.
    """

    sources: Mapping[str, Callable[[ObjectStore], Source]]
    active: tuple[str, ...]
    families: Families
    recipes: Mapping[str, Recipe]
    owners: tuple[str, ...]
    shards: int
    limit: int

    @property
    def steps(self) -> dict[str, tuple[Recipe, ...]]:
        """The recipes that each step learns: one model a step, the baselines together."""
        baselines = tuple(recipe for recipe in self.recipes.values() if recipe.baseline)
        return {BASELINES: baselines} | {
            name: (recipe,) for name, recipe in self.recipes.items() if not recipe.baseline
        }

    def shard_of_series(self, series_id: str) -> int:
        return zlib.crc32(series_id.encode()) % self.shards


@contextmanager
def owned_shard(
    context: dg.AssetExecutionContext, graph: OnlineGraph, stores: Stores
) -> Iterator[tuple[int, Lease]]:
    """The shard of this run with its lease, which the run's steps share.

    Raises:
        dg.Failure: another run is at work on the shard.
    """
    if SHARD_TAG not in context.run.tags and graph.shards > 1:
        raise dg.Failure(
            f"the graph has {graph.shards} shards: say which one with the tag {SHARD_TAG}",
            allow_retries=False,
        )
    shard = int(context.run.tags.get(SHARD_TAG, "0"))
    try:
        with stores.leases.hold(shard, context.run.run_id) as lease:
            yield shard, lease
    except LeaseHeld as held:
        raise dg.Failure(f"{held}; let that run end, then run again", allow_retries=False) from held
