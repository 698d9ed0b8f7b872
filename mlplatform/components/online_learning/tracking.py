"""Changes of champion, told to MLflow."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import dagster as dg

from mlplatform.components.online_learning.graph import BASELINES, OnlineGraph
from mlplatform.domain.champion import Change, Contest
from mlplatform.io.champion_tracking import Described
from mlplatform.resources.stores import Stores


def track_changes(
    context: dg.AssetExecutionContext,
    graph: OnlineGraph,
    stores: Stores,
    contests: Mapping[str, Contest],
    shard: int,
) -> dict[str, Any]:
    """Tracks the changes of committed contests; returns what is to be told of it in metadata.

    The run goes on whatever comes of it, and the next one tracks what is left over.
    """
    changes = {series_id: contest.changes for series_id, contest in contests.items()}
    outcome = stores.champion_tracking.track(
        shard, changes, _describe(graph, stores, shard, context.run.run_id)
    )
    if outcome is None:
        return {"tracking": "no MLflow is configured"}
    if outcome.failure:
        context.log.warning(
            f"{outcome.waiting} changes of champion wait for the next run to be tracked: {outcome.failure}"
        )
    told: dict[str, Any] = {"tracked_changes": outcome.tracked} if outcome.tracked else {}
    if outcome.waiting:
        told |= {"untracked_changes": outcome.waiting, "untracked_because": outcome.failure or "of the time"}
    if outcome.url:
        told["mlflow"] = dg.MetadataValue.url(outcome.url)
    return told


def _describe(
    graph: OnlineGraph, stores: Stores, shard: int, run_id: str
) -> Callable[[str, Change], Described]:
    """What a run in MLflow says of a change; the models' metrics are read once."""

    @cache
    def metrics_of(model: str) -> dict[str, dict[str, float]]:
        """The newest rolling metrics of a model by series."""
        recipe = graph.recipes.get(model)
        step = BASELINES if recipe and recipe.baseline else model
        frame = stores.frames.read(f"metrics/{step}/{shard}")
        rows = [] if frame is None else frame.to_pylist()
        return {row["series_id"]: _numbers(row) for row in rows if row["model"] == model}

    def describe(series_id: str, change: Change) -> Described:
        family = graph.families.of(series_id)
        recipe = graph.recipes.get(change.champion)
        metrics = {"rolling_error": change.error, **metrics_of(change.champion).get(series_id, {})}
        if change.previous is not None and change.previous_error is not None:
            previous = {"rolling_error": change.previous_error}
            previous |= metrics_of(change.previous).get(series_id, {})
            metrics |= {f"previous_{name}": value for name, value in previous.items()}
        return Described(
            name=f"{series_id}/{change.champion}",
            parameters={
                "series_id": series_id,
                "model": change.champion,
                # None: a recipe that is no longer there.
                "recipe_digest": recipe and recipe.digest,
                "lags": family.lags,
                "season": family.season,
                "since_observation": change.offset,
            },
            metrics=metrics,
            tags={
                "series_id": series_id,
                "model": change.champion,
                "previous_model": change.previous or "",
                "dagster_run_id": run_id,
            },
        )

    return describe


def _numbers(row: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items() if type(value) in (int, float)}
