"""The step that turns the log into lag features, and publishes the newest values online."""

from collections.abc import Mapping

import dagster as dg
from pydantic import Field

from mlplatform.components.online_learning.graph import RETRY, OnlineGraph, owned_shard
from mlplatform.components.online_learning.rebuild import check_series
from mlplatform.components.online_learning.schema import column_schema
from mlplatform.domain.families import Families
from mlplatform.domain.observations import Tail
from mlplatform.io.feature_table import FEATURES, feature_rows, lag_names
from mlplatform.io.observation_log import LOG
from mlplatform.io.online_store import OnlineStoreUnavailable
from mlplatform.io.states import FORMAT, State
from mlplatform.io.tables import Table
from mlplatform.resources.io_managers import Append
from mlplatform.resources.stores import Stores

STATE = "lag_features"
LOG_COLUMNS = ["shard", "position", "series_id", "offset", "event_time", "value"]


class FeatureConfig(dg.Config):
    """What is made again from the log."""

    rebuild: list[str] = Field(default=[], description="Series whose lag features are made again.")
    from_offset: int = Field(default=0, description="The first offset that is made again.", ge=0)


def feature_stream(shard: int) -> str:
    return f"features/{shard}"


def load_tails(stores: Stores, families: Families, shard: int, log: Table, head: int) -> dict[str, Tail]:
    """The end of every series' log at position `head`: the last state, moved on by what it has not seen."""
    import pyarrow.dataset as ds

    state = load_state(stores, families, shard)
    if state.position < head:
        rows = log.read(LOG_COLUMNS, state.position, ds.field("shard") == shard)
        feature_rows(rows, state.content, families)
    return state.content


def load_state(stores: Stores, families: Families, shard: int) -> State:
    return stores.states.load(STATE, shard, _versions(families), {})


def _versions(families: Families) -> Mapping[str, str]:
    return {"format": FORMAT, "families": families.version}


def feature_asset(graph: OnlineGraph) -> dg.AssetsDefinition:
    names = lag_names(graph.families.widest)
    spec = dg.AssetSpec(
        "lag_features",
        description=(
            "Each observation with the values before it: `in_1` (newest) to `in_N`, zero-filled, and how "
            "many there were. Made from the log alone, for model steps here and for the online store."
        ),
        group_name="features",
        kinds={"delta", "s3", "redis"},
        owners=list(graph.owners),
        deps=["observations"],
        code_version=graph.families.version,
        metadata={
            "dagster/column_schema": column_schema(FEATURES, dict.fromkeys(names, "float64")),
            "feature_definitions": dg.MetadataValue.json([f.describe() for f in graph.families]),
        },
    ).with_io_manager_key("table_io_manager")

    @dg.multi_asset(
        name="lag_features",
        specs=[spec],
        check_specs=[
            dg.AssetCheckSpec(
                "online_store", asset=spec.key, description="The newest values are in the online store."
            )
        ],
        retry_policy=RETRY,
    )
    def lag_features(context: dg.AssetExecutionContext, config: FeatureConfig, stores: Stores):
        with owned_shard(context, graph, stores) as (shard, _):
            yield from _make(context, graph, config, stores, shard, names)

    return lag_features


def _make(context, graph: OnlineGraph, config: FeatureConfig, stores: Stores, shard: int, names: list[str]):
    import pyarrow.dataset as ds

    log = stores.table(LOG.name)
    state = load_state(stores, graph.families, shard)
    if state.refused:
        context.log.warning(f"lag features are made again from the log: {state.refused}")
    tails = state.content
    of_shard = ds.field("shard") == shard
    rows = log.read(LOG_COLUMNS, state.position, of_shard)
    append = None
    if len(rows):
        state.position = rows["position"][-1].as_py() + 1
        features = feature_rows(rows, tails, graph.families)
        if state.refused:
            # Rows of other definitions must not stay beside the new ones; then only the head is left to move.
            stores.table(FEATURES.name).replace(features, f"shard = {shard}")
            features = features.slice(0, 0)
        append = Append(features, feature_stream(shard), state.position)
    # Said to the context, it stands in one event; in the result, it would stand in two.
    context.add_asset_metadata(
        {"position": state.position, "dagster/column_lineage": _lineage(names)}, asset_key="lag_features"
    )
    yield dg.MaterializeResult(asset_key="lag_features", value=append)
    if append is not None:
        commit = stores.states.prepare(STATE, shard, _versions(graph.families), state, {})
        stores.snapshots.commit(commit.snapshot, commit.etag)
    if config.rebuild:
        check_series(config.rebuild, tails)
        for series_id in config.rebuild:
            _rebuild(stores.table(FEATURES.name), log, graph.families, series_id, config.from_offset)
        context.log.info(f"lag features of {', '.join(config.rebuild)} were made again")
    yield _publish(stores, tails)


def _rebuild(features: Table, log: Table, families: Families, series_id: str, from_offset: int) -> None:
    import pyarrow.dataset as ds

    rows = log.read(LOG_COLUMNS, where=ds.field("series_id") == series_id)
    made = feature_rows(rows, {}, families)
    wanted = made.filter(ds.field("offset") >= from_offset)
    quoted = series_id.replace("'", "''")
    features.replace(wanted, f"series_id = '{quoted}' AND offset >= {from_offset}")


def _publish(stores: Stores, tails: Mapping[str, Tail]) -> dg.AssetCheckResult:
    """Publishes the newest values of every series, so that a store that was lost is whole again."""
    newest = [(series_id, tail.next_offset - 1, tail.values) for series_id, tail in tails.items()]
    try:
        changed = stores.online.publish(newest)
    except OnlineStoreUnavailable as error:
        return dg.AssetCheckResult(
            asset_key="lag_features",
            check_name="online_store",
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            description=f"Online features are stale until the next run: {error}",
        )
    return dg.AssetCheckResult(
        asset_key="lag_features", check_name="online_store", passed=True, metadata={"changed": changed}
    )


def _lineage(names: list[str]) -> dg.TableColumnLineage:
    value = [dg.TableColumnDep(dg.AssetKey("observations"), "value")]
    same = ("series_id", "offset", "event_time", "value")
    return dg.TableColumnLineage(
        {name: [dg.TableColumnDep(dg.AssetKey("observations"), name)] for name in same}
        | dict.fromkeys(names, value)
    )
