"""The step that chooses which model serves each series, and ends the run as failed if a model failed."""

from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import dagster as dg

from mlplatform.components.online_learning.graph import CHAMPION, RETRY, OnlineGraph, owned_shard
from mlplatform.components.online_learning.tracking import track_changes
from mlplatform.domain.champion import Contest
from mlplatform.io.observation_log import LOG, log_stream
from mlplatform.io.prediction_table import PREDICTIONS, prediction_stream
from mlplatform.io.states import FORMAT, State
from mlplatform.io.tables import Table
from mlplatform.resources.io_managers import ShardFrame
from mlplatform.resources.stores import Stores

if TYPE_CHECKING:
    import pyarrow as pa

# Raised when the meaning of a contest's fields changes: it is then held again from the predictions.
CONTEST = "2"
COLUMNS = ["model", "shard", "position", "series_id", "offset", "event_time", "value", "prediction"]


def champion_asset(graph: OnlineGraph) -> dg.AssetsDefinition:
    spec = dg.AssetSpec(
        CHAMPION,
        description=(
            "The model that serves each series: the lowest rolling error, with hysteresis, chosen from what "
            "the models have committed. Fails the run when a model is behind the log."
        ),
        group_name="online",
        kinds={"parquet", "s3"},
        owners=list(graph.owners),
        deps=[dg.AssetKey(["predictions", name]) for name in graph.steps],
    ).with_io_manager_key("frame_io_manager")

    @dg.multi_asset(
        name=CHAMPION,
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(
                "beats_baselines",
                asset=spec.key,
                description="No baseline has a lower rolling error than a champion.",
            )
        ],
        retry_policy=RETRY,
    )
    def champion(context: dg.AssetExecutionContext, stores: Stores):
        with owned_shard(context, graph, stores) as (shard, _):
            yield from _choose(context, graph, stores, shard)
            stores.leases.release(shard, context.run.run_id)

    return champion


def contest_versions(graph: OnlineGraph) -> dict[str, str]:
    """What the meaning of the stored contests depends on."""
    return {"format": FORMAT, "contest": CONTEST, "recipes": ",".join(sorted(graph.recipes))}


def _choose(context, graph: OnlineGraph, stores: Stores, shard: int):
    baselines = {recipe.name for recipe in graph.recipes.values() if recipe.baseline}
    candidates = set(graph.recipes) - baselines
    versions = contest_versions(graph)
    table = stores.table(PREDICTIONS.name)
    state = stores.states.load(CHAMPION, shard, versions, {})
    published = table.head(prediction_stream(CHAMPION, shard))
    contests: dict[str, Contest] = state.content
    if _contend(state, contests, table, shard, candidates, published):
        commit = stores.states.prepare(CHAMPION, shard, versions, state, {})
        stores.snapshots.commit(commit.snapshot, commit.etag)
    if state.unpublished is not None:
        table.append(state.unpublished, prediction_stream(CHAMPION, shard), state.position)
    losing = {series: name for series, c in contests.items() if (name := c.loses_to(baselines))}
    tracking = track_changes(context, graph, stores, contests, shard)
    serving = Counter(c.champion for c in contests.values() if c.champion)
    frame = _frame(contests, losing)
    yield dg.MaterializeResult(
        asset_key=CHAMPION,
        value=ShardFrame(frame, shard) if len(frame) else None,
        metadata={
            "position": state.position,
            "champions": ", ".join(f"{name}: {count}" for name, count in serving.most_common()),
            "error": _mean_error(contests),
            **tracking,
        },
    )
    yield dg.AssetCheckResult(
        asset_key=CHAMPION,
        check_name="beats_baselines",
        passed=not losing,
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "series": len(contests),
            "lost": len(losing),
            "examples": str(dict(list(losing.items())[:5])),
        },
    )
    _tell_failures(context, graph, stores, table, shard)


def _contend(
    state: State, contests: dict[str, Contest], table: Table, shard: int, candidates: set[str], published: int
) -> bool:
    """Moves the contests on by all predictions that they have not seen; False if there are none."""
    import pyarrow as pa
    import pyarrow.dataset as ds

    mine = (ds.field("shard") == shard) & (ds.field("model") != CHAMPION)
    rows = table.read(COLUMNS, state.position, mine).to_pydict()
    said: dict[int, dict[str, float]] = {}
    observed: dict[int, int] = {}
    for row, position in enumerate(rows["position"]):
        said.setdefault(position, {})[rows["model"][row]] = rows["prediction"][row]
        observed[position] = row
    if not said:
        return False
    made = []
    for position in sorted(said):
        row, predictions = observed[position], said[position]
        series_id, offset, value = rows["series_id"][row], rows["offset"][row], rows["value"][row]
        contest = contests.setdefault(series_id, Contest())
        name, prediction = contest.predict(predictions, candidates)
        made.append(
            {
                "model": CHAMPION,
                "shard": shard,
                "position": position,
                "series_id": series_id,
                "offset": offset,
                "event_time": rows["event_time"][row],
                "value": value,
                "prediction": prediction,
                "model_version": name,
            }
        )
        contest.learn(offset, value, predictions, candidates)
    state.move_on(max(said) + 1, pa.Table.from_pylist(made, schema=PREDICTIONS.schema), published)
    return True


def _frame(contests: Mapping[str, Contest], losing: Mapping[str, str]) -> "pa.Table":
    import pyarrow as pa

    return pa.Table.from_pylist(
        [
            {
                "series_id": series_id,
                "champion": contest.champion,
                "since_offset": contest.since_offset,
                "rolling_error": contest.errors.get(contest.champion or ""),
                "loses_to": losing.get(series_id),
                **contest.metrics.summary(),
            }
            for series_id, contest in sorted(contests.items())
        ]
    )


def _mean_error(contests: Mapping[str, Contest]) -> float:
    errors = [c.errors[c.champion] for c in contests.values() if c.champion]
    return sum(errors) / len(errors) if errors else 0.0


def _tell_failures(context, graph: OnlineGraph, stores: Stores, table: Table, shard: int) -> None:
    """Raises: a source was not read, or a model has not learned all of the log."""
    reasons = stores.failures.take(context.run.run_id)
    head = stores.table(LOG.name).head(log_stream(shard))
    names = list(graph.steps)
    heads = table.heads(*(prediction_stream(name, shard) for name in names))
    for name, at in zip(names, heads, strict=True):
        if at < head:
            reasons.setdefault(name, f"it stands at position {at} of {head}")
    if reasons:
        told = "; ".join(f"{part}: {reason}" for part, reason in reasons.items())
        raise dg.Failure(f"{told}. Everything else went on; the next run tries again", allow_retries=False)
