"""What runs the graph: the job, and the sensor that polls the sources every minute."""

from __future__ import annotations

import json
import time

import dagster as dg

from mlplatform.components.online_learning.graph import SHARD_TAG, OnlineGraph
from mlplatform.domain.observations import SourceError
from mlplatform.io.observation_log import LOG, log_stream, source_stream
from mlplatform.resources.stores import Stores

JOB = "online_learning"
POLL_SECONDS = 60
MAX_RUNTIME_SECONDS = 900
# From its start until its first step takes the lease, a run imports what it needs.
STARTING_SECONDS = 60
ACTIVE = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


def online_learning_job():
    return dg.define_asset_job(
        JOB,
        selection=dg.AssetSelection.groups("ingestion", "features", "online"),
        description="Takes what the sources have, and lets every model learn it.",
        tags={"dagster/max_runtime": str(MAX_RUNTIME_SECONDS)},
    )


def poll_sensor(graph: OnlineGraph) -> dg.SensorDefinition:
    @dg.sensor(
        name="poll_sources",
        job_name=JOB,
        minimum_interval_seconds=POLL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="One run for all that waits in the sources, for each shard that has something.",
    )
    def poll_sources(context: dg.SensorEvaluationContext, stores: Stores):
        log = stores.table(LOG.name)
        requests, positions, reasons = [], {}, []
        for shard in range(graph.shards):
            streams = [source_stream(name, shard) for name in graph.active]
            head, *read_up_to = log.heads(log_stream(shard), *streams)
            waiting = {}
            for name, after in zip(graph.active, read_up_to, strict=True):
                try:
                    waiting[name] = graph.sources[name](stores.objects).available(after) - after
                except SourceError as error:
                    context.log.error(str(error))
                    reasons.append(str(error))
            positions[shard] = head
            if not any(waiting.values()):
                reasons.append(f"shard {shard}: nothing waits")
                continue
            if busy := _busy(context, stores, shard):
                reasons.append(f"shard {shard}: {busy}")
                continue
            # No run key: Dagster would remember it for ever, and a run that is asked for twice learns once.
            requests.append(dg.RunRequest(tags={SHARD_TAG: str(shard)}))
        return dg.SensorResult(
            run_requests=requests,
            skip_reason=None if requests else "; ".join(reasons),
            cursor=json.dumps(positions),
        )

    return poll_sources


def _busy(context: dg.SensorEvaluationContext, stores: Stores, shard: int) -> str | None:
    """Why no run may start now: one is on its way, or one holds a live lease.

    A run that died says "started" for ever; its lease ends by itself, so that it blocks nobody.
    """
    now = time.time()
    active = dg.RunsFilter(job_name=JOB, statuses=ACTIVE, tags={SHARD_TAG: str(shard)})
    for record in context.instance.get_run_records(active, limit=10):
        begun, allowed = record.create_timestamp.timestamp(), MAX_RUNTIME_SECONDS
        if record.start_time is not None:
            begun, allowed = record.start_time, STARTING_SECONDS
        if now - begun < allowed:
            return f"run {record.dagster_run.run_id} is on its way"
    lease = stores.leases.current(shard)
    if lease is None or not lease.live:
        return None
    owner = context.instance.get_run_by_id(lease.owner)
    return None if owner is not None and owner.is_finished else f"run {lease.owner} is active"
