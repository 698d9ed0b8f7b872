"""The step that turns what sources submit into the log."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta

import dagster as dg
import numpy as np
from pydantic import Field

from mlplatform.components.online_learning.features import load_tails
from mlplatform.components.online_learning.graph import RETRY, OnlineGraph, owned_shard
from mlplatform.components.online_learning.schema import column_schema
from mlplatform.domain.observations import BELIEVED_CLOCK_ERROR, SourceError, Submission, Tail, admit
from mlplatform.io.object_store import Conflict
from mlplatform.io.observation_log import (
    LOG,
    QUARANTINE,
    SHARDS,
    log_rows,
    log_stream,
    owner_stream,
    quarantine_rows,
    source_stream,
)
from mlplatform.io.prediction_table import PREDICTIONS
from mlplatform.io.tables import Table
from mlplatform.resources.io_managers import Append
from mlplatform.resources.stores import Stores
from mlplatform.settings import FIRST_SERVICE_SHARD

FEW_SERIES = 20
WARN_AFTER, FAIL_AFTER = timedelta(minutes=3), timedelta(minutes=10)


class IngestionConfig(dg.Config):
    """What one run takes."""

    sources: list[str] = Field(
        default=[], description="Names of the sources to read; empty: the active ones."
    )
    limit: int | None = Field(default=None, description="At most so many submissions from each source.", ge=1)


def ingestion_asset(graph: OnlineGraph) -> dg.AssetsDefinition:
    """`quarantine` and `observations`, made by one step: refusals first, so that none is lost."""
    quarantine = dg.AssetSpec(
        "quarantine",
        description="Submissions that were refused, with the reason; nothing downstream has seen them.",
        group_name="ingestion",
        kinds={"delta", "s3"},
        owners=list(graph.owners),
        metadata={"dagster/column_schema": column_schema(QUARANTINE)},
    )
    observations = dg.AssetSpec(
        "observations",
        description="The append-only log of all series: every observation once, with dense offsets.",
        group_name="ingestion",
        kinds={"delta", "s3"},
        owners=list(graph.owners),
        freshness_policy=dg.FreshnessPolicy.time_window(fail_window=FAIL_AFTER, warn_window=WARN_AFTER),
        metadata={"dagster/column_schema": column_schema(LOG)},
    ).with_io_manager_key("table_io_manager")

    @dg.multi_asset(
        name="observations",
        specs=[quarantine, observations],
        check_specs=[
            dg.AssetCheckSpec(
                "schema", asset=observations.key, description="The log has its columns.", blocking=True
            ),
            dg.AssetCheckSpec(
                "finite", asset=observations.key, description="Every value is finite.", blocking=True
            ),
            dg.AssetCheckSpec(
                "dense_offsets",
                asset=observations.key,
                description="Offsets go on where each series ended: no gap, no duplicate, in order.",
                blocking=True,
            ),
            dg.AssetCheckSpec("sources_answer", asset=observations.key, description="Every source was read."),
            dg.AssetCheckSpec(
                "nothing_refused", asset=quarantine.key, description="No submission of this run was refused."
            ),
        ],
        retry_policy=RETRY,
    )
    def ingest(context: dg.AssetExecutionContext, config: IngestionConfig, stores: Stores):
        with owned_shard(context, graph, stores) as (shard, lease):
            yield from _ingest(context, graph, config, stores, shard, lease.token)

    return ingest


def _known(log: Table, shard: int, submissions: Sequence[Submission]) -> set[tuple[str, str]]:
    """Which (series_id, observation_id) of the submissions' ranges the log already holds."""
    import pyarrow.dataset as ds

    if not submissions:
        return set()
    ids = [str(submission.observation_id) for submission in submissions]
    within = (ds.field("observation_id") >= min(ids)) & (ds.field("observation_id") <= max(ids))
    series = {submission.series_id for submission in submissions}
    if len(series) <= FEW_SERIES:
        within &= ds.field("series_id").isin(sorted(series))
    rows = log.read(["series_id", "observation_id"], where=within & (ds.field("shard") == shard))
    return set(zip(rows["series_id"].to_pylist(), rows["observation_id"].to_pylist(), strict=True))


def _of_services(stores: Stores, new: Collection[object]) -> set[str]:
    """Which of the series that are new here a service owns, in its shard of the log or of the predictions."""
    import pyarrow.dataset as ds

    names = sorted(series_id for series_id in new if isinstance(series_id, str))
    if not names:
        return set()
    owned = ds.field("series_id").isin(names) & (ds.field("shard") >= FIRST_SERVICE_SHARD)
    tables = (stores.table(LOG.name), stores.table(PREDICTIONS.name))
    return {
        name for table in tables for name in table.read(["series_id"], where=owned)["series_id"].to_pylist()
    }


def _checks(
    log: Table, shard: int, start: int, end: int, tails: Mapping[str, Tail]
) -> Iterator[dg.AssetCheckResult]:
    """Reads back the rows from `start` to `end`, and holds them against the ends of the series before."""
    import pyarrow.dataset as ds

    written = log.read(list(LOG.columns), start, ds.field("shard") == shard)
    missing = [
        name
        for name, field in zip(LOG.schema.names, LOG.schema, strict=True)
        if written.schema.field(name).type != field.type
    ]
    not_finite = int((~np.isfinite(written["value"].to_numpy())).sum())
    expected = {series_id: tail.next_offset for series_id, tail in tails.items()}
    broken: list[str] = []
    for position, series_id, offset in zip(
        written["position"].to_pylist(),
        written["series_id"].to_pylist(),
        written["offset"].to_pylist(),
        strict=True,
    ):
        if offset != expected.get(series_id, 0):
            broken.append(f"{series_id} has offset {offset} at position {position}")
        expected[series_id] = offset + 1
    if len(written) != end - start:
        broken.append(f"{len(written)} rows from position {start} to {end}")
    for name, problems in (("schema", missing), ("finite", not_finite), ("dense_offsets", broken)):
        yield dg.AssetCheckResult(
            asset_key="observations",
            check_name=name,
            passed=not problems,
            metadata={"problems": str(problems)[:1000]} if problems else {},
        )


def _ingest(context, graph: OnlineGraph, config: IngestionConfig, stores: Stores, shard: int, token: int):
    log = stores.table(LOG.name)
    names = config.sources or list(graph.active)
    unknown = [name for name in names if name not in graph.sources]
    if unknown:
        known = ", ".join(graph.sources)
        raise dg.Failure(f"no source {', '.join(unknown)}; there are {known}", allow_retries=False)
    quarantine = stores.table(QUARANTINE.name)
    streams = [source_stream(name, shard) for name in names]
    head, fence, shards, *read_up_to = log.heads(log_stream(shard), owner_stream(shard), SHARDS, *streams)
    if fence > token:
        raise Conflict(f"shard {shard} has a newer owner (token {fence}, ours is {token})")
    if shards not in (0, graph.shards):
        raise dg.Failure(
            f"the log was written with shards: {shards}, not {graph.shards}; series would be learned twice. "
            "Set it back, or start a new log with another MLPLATFORM_S3_PREFIX",
            allow_retries=False,
        )
    submissions: list[Submission] = []
    advanced: dict[str, int] = {}
    broken: dict[str, str] = {}
    waiting = 0
    for name, stream, after, refused_up_to in zip(
        names, streams, read_up_to, quarantine.heads(*streams), strict=True
    ):
        try:
            source = graph.sources[name](stores.objects)
            taken = source.read(after, config.limit or graph.limit)
        except SourceError as error:
            # One that cannot be read must not keep the others waiting.
            broken[name] = str(error)
            context.log.error(str(error))
            continue
        if refused_up_to - 1 > after:
            # A run died between its two appends: the same submissions again, so that none is decided twice.
            taken = [each for each in taken if each.source_position < refused_up_to]
        if taken:
            advanced[stream] = taken[-1].source_position
            waiting += source.available(advanced[stream]) - advanced[stream]
            context.log.info(f"{len(taken)} submissions from {name}")
        submissions += [s for s in taken if graph.shard_of_series(s.series_id) == shard]
    if broken and len(broken) == len(names):
        raise dg.Failure("; ".join(broken.values()), allow_retries=False)
    for name, reason in broken.items():
        stores.failures.note(context.run.run_id, f"source {name}", reason)
    tails = load_tails(stores, graph.families, shard, log, head)
    before = dict(tails)
    taken_by_services = _of_services(stores, {each.series_id for each in submissions} - set(tails))
    accepted, refused = admit(
        submissions,
        tails,
        _known(log, shard, submissions),
        graph.families,
        until=datetime.now(UTC) + BELIEVED_CLOCK_ERROR,
        elsewhere=taken_by_services,
    )

    for name in {refusal.submission.source for refusal in refused}:
        # One append for each source, since each has positions of its own.
        rows = [refusal for refusal in refused if refusal.submission.source == name]
        stream = source_stream(name, shard)
        quarantine.append(quarantine_rows(rows), stream, advanced[stream] + 1)
    reasons = sorted({refusal.reason for refusal in refused})
    yield dg.MaterializeResult(
        asset_key="quarantine",
        metadata={
            "refused": len(refused),
            "dagster/uri": quarantine.url,
            **({"reasons": "\n".join(reasons[:10])} if reasons else {}),
        },
    )
    append = None
    if advanced:
        append = Append(
            log_rows(accepted, shard, head),
            log_stream(shard),
            head + len(accepted),
            expected={log_stream(shard): head, owner_stream(shard): fence},
            # The number of shards only once: shards that append at the same time would conflict over it.
            also={**advanced, owner_stream(shard): token, **({} if shards else {SHARDS: graph.shards})},
        )
    newest = max((o.event_time for o in accepted), default=None)
    lag = {"lag_seconds": (datetime.now(UTC) - newest).total_seconds()} if newest else {}
    yield dg.MaterializeResult(
        asset_key="observations",
        value=append,
        metadata={"position": head + len(accepted), "waiting": waiting, "series": len(tails), **lag},
    )
    yield from _checks(log, shard, head, head + len(accepted), before)
    yield dg.AssetCheckResult(
        asset_key="observations",
        check_name="sources_answer",
        passed=not broken,
        metadata=dict(broken),
    )
    yield dg.AssetCheckResult(
        asset_key="quarantine",
        check_name="nothing_refused",
        passed=not refused,
        # What others own will go on being refused; the rest may have been a bad value.
        severity=dg.AssetCheckSeverity.ERROR if taken_by_services else dg.AssetCheckSeverity.WARN,
        metadata={"refused": len(refused), "series_of_services": ", ".join(sorted(taken_by_services))[:1000]},
    )
