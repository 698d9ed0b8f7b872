"""What the HTTP services keep: assets that nobody here makes, and the sensor that says when they changed."""

from __future__ import annotations

import json

import dagster as dg

from mlplatform.components.online_learning.graph import OnlineGraph
from mlplatform.resources.stores import Stores
from mlplatform.settings import FIRST_SERVICE_SHARD

GROUP = "services"
FEATURES = "features"
LOOK_SECONDS = 30


def service_assets(graph: OnlineGraph) -> list[dg.AssetSpec]:
    """`services/features` and `services/<recipe>`: the snapshots that services commit."""
    features = dg.AssetKey([GROUP, FEATURES])
    return [
        _spec(graph, FEATURES, "The series that the feature service owns, with their newest values.", []),
        *(
            _spec(graph, name, f"{recipe.description}, of the series that its service owns.", [features])
            for name, recipe in graph.recipes.items()
            if not recipe.baseline
        ),
    ]


def service_sensor(graph: OnlineGraph) -> dg.SensorDefinition:
    known = {FEATURES, *(name for name, recipe in graph.recipes.items() if not recipe.baseline)}

    @dg.sensor(
        name="watch_services",
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of each snapshot that an HTTP service has committed.",
    )
    def watch_services(context: dg.SensorEvaluationContext, stores: Stores) -> dg.SensorResult:
        seen: dict[str, str] = json.loads(context.cursor or "{}")
        now: dict[str, str] = {}
        events = []
        for (name, shard), etag in stores.snapshots.etags().items():
            if name not in known or shard < FIRST_SERVICE_SHARD:
                continue
            now[f"{name}/{shard}"] = etag
            if seen.get(f"{name}/{shard}") == etag:
                continue
            snapshot = stores.snapshots.read(name, shard)
            if snapshot is None:
                context.log.warning(f"the snapshot {name}/{shard} is torn, or signed with another key")
                continue
            events.append(
                dg.AssetMaterialization(
                    [GROUP, name],
                    metadata={
                        "position": snapshot.position,
                        "shard": shard,
                        "snapshot_bytes": len(snapshot.payload),
                        "digest": snapshot.digest[:12],
                        "committed_at": snapshot.created_at,
                        "dagster/uri": stores.objects.url(stores.snapshots.key(name, shard)),
                    },
                )
            )
        return dg.SensorResult(
            asset_events=events,
            skip_reason=None if events else "no service has committed a snapshot since",
            cursor=json.dumps(now),
        )

    return watch_services


def _spec(graph: OnlineGraph, name: str, description: str, deps: list[dg.AssetKey]) -> dg.AssetSpec:
    return dg.AssetSpec(
        [GROUP, name],
        description=description,
        deps=deps,
        group_name=GROUP,
        kinds={"s3"},
        owners=list(graph.owners),
    )
