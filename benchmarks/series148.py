"""148 series through the four seed models: our fold on two cores against the bare River loop."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from functools import cache
from multiprocessing import get_context

import numpy as np

from benchmarks import river_loop
from benchmarks.data import FAMILIES, employment_log
from benchmarks.measure import Row, Session, alternate, say, seconds
from mlplatform.domain.model import FeatureRows, ModelSet
from mlplatform.domain.recipes import load_recipes
from mlplatform.io.feature_table import feature_rows, to_feature_rows

SHARDS = 2
# River's forest alone would take minutes over all series.
EVERY = 8


def measure(session: Session) -> Iterator[Row]:
    """Two processes own a shard each, as in the graph; River's loop has one process."""
    recipes, rows = load_recipes(), to_feature_rows(feature_rows(employment_log(), {}, FAMILIES))
    say(f"{len(rows):,} observations of {len(np.unique(rows.series_id))} series, in {SHARDS} processes")
    with ExitStack() as exit_stack:
        # Each shard has its own process; warm: imported, compiled, and with its rows at hand.
        pools = [
            exit_stack.enter_context(ProcessPoolExecutor(1, get_context("spawn"))) for _ in range(SHARDS)
        ]

        def on_all(act: Callable[[int], int]) -> list[int]:
            return [each.result() for each in [pool.submit(act, shard) for shard, pool in enumerate(pools)]]

        say(f"observations of each shard: {on_all(_fold)}")
        ours = alternate({"ours": lambda: on_all(_fold)}, 3)["ours"]

    names = np.unique(rows.series_id)[:: 1 if session.full else EVERY]
    chosen = [indices for series_id, indices in rows.by_series() if series_id in names]
    observations = sum(map(len, chosen))
    say(f"River's loop over {len(chosen)} series, {observations:,} observations, in one process")
    other = 0.0
    for name, regressor in river_loop.regressors(recipes).items():
        arrays = [river_loop.differenced(rows, recipes[name], indices) for indices in chosen]

        def river(regressor: Callable = regressor, arrays: list = arrays) -> None:
            for each in arrays:
                river_loop.run(regressor(), river_loop.named(*each))

        taken = seconds(river)
        say(f"river, {name}: {taken:.3g} s")
        other += taken * len(rows) / observations
    scaled = "" if session.full else f" (scaled up from every {EVERY}th series)"
    yield Row(f"{len(rows):,} observations, ours on two cores, River's on one{scaled}", ours, other, "s", 0.6)


@cache
def _shard(shard: int) -> FeatureRows:
    """Lag features of the series that belong to a shard."""
    log = employment_log()
    mine = np.array([zlib.crc32(name.encode()) % SHARDS == shard for name in log["series_id"].to_pylist()])
    return to_feature_rows(feature_rows(log.filter(mine), {}, FAMILIES))


def _fold(shard: int) -> int:
    """Lets the four models learn a shard from its first observation to its last."""
    rows, recipes = _shard(shard), load_recipes()
    ModelSet(tuple(recipes[name] for name in river_loop.regressors(recipes)), FAMILIES).fold(rows)
    return len(rows)
