"""The steps that learn: each one model for all series of a shard, whole in itself."""

import math
import time
import traceback
from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from statistics import fmean
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from mlplatform.components.online_learning.graph import RETRY, OnlineGraph, owned_shard
from mlplatform.components.online_learning.plots import line_plot
from mlplatform.components.online_learning.rebuild import check_series
from mlplatform.components.online_learning.schema import column_schema
from mlplatform.domain.model import FeatureRows, ModelError, ModelSet
from mlplatform.domain.recipe import Recipe
from mlplatform.io.feature_table import FEATURES, to_feature_rows
from mlplatform.io.prediction_table import PREDICTIONS, prediction_rows, prediction_stream
from mlplatform.io.results import FORECAST_STEPS, forecast_frame, metrics_frame
from mlplatform.io.states import State, versions_of
from mlplatform.io.tables import Table
from mlplatform.resources.io_managers import Append, ShardFrame
from mlplatform.resources.stores import Stores

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.dataset as ds

# So many series are tried without, one after the other; then the model rests for all of them.
MOST_FAILING = 5


class ModelConfig(dg.Config):
    """What is learned again from the log."""

    rebuild: list[str] = Field(default=[], description="Series whose model forgets all and learns again.")


def model_asset(graph: OnlineGraph, name: str, recipes: tuple[Recipe, ...]) -> dg.AssetsDefinition:
    """`models/…`, `predictions/…`, `metrics/…` and `forecasts/…` of one step."""
    title = ", ".join(recipe.description for recipe in recipes)
    version = "-".join(recipe.digest for recipe in recipes)[:64]
    shared = {"group_name": "online", "owners": list(graph.owners), "code_version": version}
    libraries = {library for recipe in recipes for library in recipe.libraries}
    model = dg.AssetSpec(
        ["models", name],
        description=f"{title}. State, offset and versions in one signed snapshot.",
        deps=["lag_features"],
        kinds={"s3", *sorted(libraries)[:1]},
        **shared,
    ).with_io_manager_key("snapshot_io_manager")
    predictions = dg.AssetSpec(
        ["predictions", name],
        description=f"What {name} said of each observation before it learned it.",
        deps=["lag_features"],
        kinds={"delta", "s3"},
        metadata={"dagster/column_schema": column_schema(PREDICTIONS)},
        **shared,
    ).with_io_manager_key("table_io_manager")
    metrics = dg.AssetSpec(
        ["metrics", name],
        description=f"MAE, MSE, RMSE and MAPE of {name} over all and the last 5, 10, 20 observations.",
        deps=[predictions],
        kinds={"parquet", "s3"},
        **shared,
    ).with_io_manager_key("frame_io_manager")
    forecasts = dg.AssetSpec(
        ["forecasts", name],
        description=f"The next {FORECAST_STEPS} values of each series by {name}, each made of those before.",
        deps=[model],
        kinds={"parquet", "s3"},
        **shared,
    ).with_io_manager_key("frame_io_manager")

    @dg.multi_asset(
        name=name,
        specs=[model, predictions, metrics, forecasts],
        check_specs=[
            dg.AssetCheckSpec(
                "healthy",
                asset=model.key,
                description="It learned every observation, and ADWIN sees no rise of its errors.",
            )
        ],
        retry_policy=RETRY,
    )
    def learn(context: dg.AssetExecutionContext, config: ModelConfig, stores: Stores):
        with owned_shard(context, graph, stores) as (shard, _):
            yield from _step(context, graph, config, stores, name, recipes, shard)

    return learn


def _step(
    context,
    graph: OnlineGraph,
    config: ModelConfig,
    stores: Stores,
    name: str,
    recipes: tuple[Recipe, ...],
    shard: int,
):
    versions = versions_of(recipes, graph.families)

    def load() -> State:
        return stores.states.load(name, shard, versions, ModelSet(recipes, graph.families))

    state = load()
    if state.refused:
        context.log.warning(f"{name} learns the whole log again: its snapshot is refused, {state.refused}")
    if config.rebuild:
        check_series(config.rebuild, {series_id for _, series_id in state.content.models})
    drifts, before = _drifts(state.content), state.position
    table, lag_features = stores.table(PREDICTIONS.name), stores.table(FEATURES.name)
    published = table.head(prediction_stream(name, shard))
    rows = to_feature_rows(lag_features.read(start=before, where=_of(shard)))
    started = time.monotonic()
    failing: dict[str, str] = {}
    # A series whose model fails is left behind, and learned again from the log with the next run.
    while True:
        again = sorted(({*config.rebuild} | state.content.behind) - failing.keys())
        try:
            replaced = _relearn(state, lag_features, again, failing, shard)
            _learn(state, rows.without(failing), rows, published, shard)
            break
        except ModelError as error:
            context.log.error(f"{error}\n{traceback.format_exc()}")
            failing[error.series_id] = str(error)
            if len(failing) > MOST_FAILING:
                # Not the data of some series, it seems, but the model.
                failing |= dict.fromkeys({*rows.series_id, *state.content.behind}, str(error))
            state = load()
    changed = bool(len(rows) or again)
    context.log.info(f"{name} learned {len(rows)} observations in {time.monotonic() - started:.1f} s")
    if failing:
        reason = next(iter(failing.values())) + (
            f" (and {len(failing) - 1} more)" if len(failing) > 1 else ""
        )
        stores.failures.note(context.run.run_id, name, reason)
    # Before the commit: what a crash leaves undone here is done again.
    if replaced is not None:
        _replace_predictions(table, replaced, recipes, again, shard)
    yield from _results(context, stores, name, shard, versions, state, changed)
    drifted = sorted(_drifts(state.content) - drifts)
    problems = {"errors": "\n".join([*failing.values()][:5])} if failing else {}
    problems |= {"drifted": ", ".join(drifted[:10])} if drifted else {}
    yield dg.AssetCheckResult(
        asset_key=["models", name],
        check_name="healthy",
        passed=not problems,
        severity=dg.AssetCheckSeverity.ERROR if failing else dg.AssetCheckSeverity.WARN,
        metadata=problems,
    )


def _learn(state: State, rows: FeatureRows, until: FeatureRows, published: int, shard: int) -> None:
    """Moves the state on by the rows, to the end of `until`; predictions that no table has stay with it."""
    if not len(until):
        return
    models: ModelSet = state.content
    made = prediction_rows(rows, models.fold(rows), models.versions, shard)
    state.move_on(int(until.position[-1]) + 1, made, published)


def _relearn(
    state: State, features: Table, series: Collection[str], failing: Collection[str], shard: int
) -> "pa.Table | None":
    """Lets the models of some series forget all and learn again up to the state's position."""
    import pyarrow.compute as pc
    import pyarrow.dataset as ds

    models: ModelSet = state.content
    models.forget({*series, *failing})
    models.behind = set(failing)
    if not series:
        return None
    table = features.read(where=_of(shard) & ds.field("series_id").isin(series))
    rows = to_feature_rows(table.filter(pc.field("position") < state.position))
    return prediction_rows(rows, models.fold(rows), models.versions, shard)


def _replace_predictions(
    table: Table, rows: "pa.Table", recipes, series: Collection[str], shard: int
) -> None:
    models = ", ".join(f"'{recipe.name}'" for recipe in recipes)
    ids = ", ".join("'" + series_id.replace("'", "''") + "'" for series_id in series)
    end = rows["position"][-1].as_py() if len(rows) else -1
    # A service may have had a series of this name before the pipeline, in a shard of its own.
    table.replace(
        rows, f"model IN ({models}) AND shard = {shard} AND series_id IN ({ids}) AND position <= {end}"
    )


def _results(
    context, stores: Stores, name: str, shard: int, versions: Mapping[str, str], state: State, changed: bool
) -> Iterator[dg.MaterializeResult]:
    """The four outputs, the snapshot first: once it is committed, the others follow from it."""
    models: ModelSet = state.content
    commit = stores.states.prepare(name, shard, versions, state, {}) if changed else None
    metrics = metrics_frame(models)
    # Said to the context, it stands in one event; in the result, it would stand in two.
    told = {"position": state.position, "models": len(models.models), **_plot(name, models)}
    context.add_asset_metadata(told, asset_key=["models", name])
    yield dg.MaterializeResult(asset_key=["models", name], value=commit)
    append = None
    if state.unpublished is not None:
        append = Append(state.unpublished, prediction_stream(name, shard), state.position)
    yield dg.MaterializeResult(asset_key=["predictions", name], value=append)
    yield dg.MaterializeResult(
        asset_key=["metrics", name],
        value=ShardFrame(metrics, shard) if len(metrics) else None,
        metadata=_means(metrics),
    )
    forecasts = forecast_frame(models)
    yield dg.MaterializeResult(
        asset_key=["forecasts", name], value=ShardFrame(forecasts, shard) if len(forecasts) else None
    )


def _means(metrics: "pa.Table") -> dict[str, float]:
    """Errors averaged over the series; of the baselines, those of the best."""
    means = []
    for model in dict.fromkeys(metrics["model"].to_pylist() if len(metrics) else []):
        rows = [row for row in metrics.to_pylist() if row["model"] == model and row["count"]]
        if rows:
            means.append({name: fmean(row[name] for row in rows) for name in ("mae", "mae_20", "mape")})
    best = min(means, key=lambda mean: mean["mae"], default={})
    return {name: value for name, value in best.items() if math.isfinite(value)}


def _plot(name: str, models: ModelSet) -> dict[str, dg.MetadataValue]:
    shown = next(((key, model) for key, model in sorted(models.models.items()) if model.metrics.last), None)
    if shown is None:
        return {}
    (recipe, series_id), model = shown
    lines = {"actual": [actual for actual, _ in model.metrics.last]}
    lines |= {title: values[-len(lines["actual"]) :] for title, values in model.baselines().items()}
    lines[recipe] = [prediction for _, prediction in model.metrics.last]
    return {"plot": line_plot(series_id, lines)}


def _drifts(models: ModelSet) -> Counter[str]:
    """How often each series has drifted."""
    return Counter(
        {series_id: model.drift.detections for (_, series_id), model in models.models.items() if model.drift}
    )


def _of(shard: int) -> "ds.Expression":
    import pyarrow.dataset as ds

    return ds.field("shard") == shard
