"""Dagit shows what the HTTP services keep: a materialisation for each snapshot that one commits."""

from __future__ import annotations

import dagster as dg
import pytest

from mlplatform import definitions
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.signing import Signer
from mlplatform.io.snapshots import Snapshot, SnapshotStore
from mlplatform.resources.stores import Stores
from mlplatform.settings import FIRST_SERVICE_SHARD, Settings
from mlplatform_tests.graphs import environment

pytestmark = [
    # What Dagster itself uses when it loads components.
    pytest.mark.filterwarnings("ignore:`parse_obj_as` is deprecated:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::dagster.PreviewWarning"),
]


def snapshot(name: str, shard: int, position: int) -> Snapshot:
    return Snapshot(name, shard, position, b"state", {"format": "1"})


def test_each_snapshot_of_a_service_is_told_once(variables) -> None:
    settings = Settings(variables)
    snapshots = SnapshotStore(ObjectStore(settings.s3), Signer.from_settings(settings))
    # The pipeline's own, and one of a model that is not here, are not told.
    snapshots.commit(snapshot("linear", 0, 7), None)
    snapshots.commit(snapshot("gone", FIRST_SERVICE_SHARD, 7), None)
    etag = snapshots.commit(snapshot("linear", FIRST_SERVICE_SHARD, 7), None)
    snapshots.commit(snapshot("features", FIRST_SERVICE_SHARD + 1, 9), None)
    with environment(variables), dg.DagsterInstance.ephemeral() as instance:
        defs = definitions.defs()
        sensor = defs.resolve_sensor_def("watch_services")
        cursor = None

        def told() -> dict[tuple[str, ...], tuple[int, int]]:
            nonlocal cursor
            context = dg.build_sensor_context(instance, cursor, resources={"stores": Stores()})
            result = sensor.evaluate_tick(context)
            cursor = result.cursor
            return {
                tuple(event.asset_key.path): (event.metadata["shard"].value, event.metadata["position"].value)
                for event in result.asset_events
            }

        assert told() == {
            ("services", "linear"): (FIRST_SERVICE_SHARD, 7),
            ("services", "features"): (FIRST_SERVICE_SHARD + 1, 9),
        }
        assert told() == {}
        snapshots.commit(snapshot("linear", FIRST_SERVICE_SHARD, 8), etag)
        assert told() == {("services", "linear"): (FIRST_SERVICE_SHARD, 8)}


def test_a_snapshot_of_another_key_stops_nothing(variables) -> None:
    settings = Settings(variables)
    store = ObjectStore(settings.s3)
    SnapshotStore(store, Signer(b"another key")).commit(snapshot("knn", FIRST_SERVICE_SHARD, 1), None)
    SnapshotStore(store, Signer.from_settings(settings)).commit(snapshot("amf", FIRST_SERVICE_SHARD, 2), None)
    with environment(variables), dg.DagsterInstance.ephemeral() as instance:
        defs = definitions.defs()
        context = dg.build_sensor_context(instance, resources={"stores": Stores()})
        result = defs.resolve_sensor_def("watch_services").evaluate_tick(context)
    assert [event.asset_key.path for event in result.asset_events] == [["services", "amf"]]
