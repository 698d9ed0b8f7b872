"""The stores of an environment, each opened when it is first used."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from mlplatform.io.failures import Failures
from mlplatform.io.feature_table import FEATURES
from mlplatform.io.leases import Leases
from mlplatform.io.object_store import ObjectStore
from mlplatform.io.observation_log import LOG, QUARANTINE
from mlplatform.io.online_store import OnlineStore
from mlplatform.io.prediction_table import PREDICTIONS
from mlplatform.io.results import Frames
from mlplatform.io.signing import Signer
from mlplatform.io.snapshots import SnapshotStore
from mlplatform.io.sources.push import INBOX
from mlplatform.io.states import StateStore
from mlplatform.io.tables import Table
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.io.champion_tracking import ChampionTracking

TABLES = {spec.name: spec for spec in (LOG, QUARANTINE, FEATURES, PREDICTIONS, INBOX)}


class Stores:
    """Object store, tables, snapshots and online store, where the settings say."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @cached_property
    def objects(self) -> ObjectStore:
        return ObjectStore(self.settings.s3)

    @cached_property
    def snapshots(self) -> SnapshotStore:
        return SnapshotStore(self.objects, Signer.from_settings(self.settings))

    @cached_property
    def states(self) -> StateStore:
        return StateStore(self.snapshots)

    @cached_property
    def frames(self) -> Frames:
        return Frames(self.objects)

    @cached_property
    def failures(self) -> Failures:
        return Failures(self.objects)

    @cached_property
    def leases(self) -> Leases:
        return Leases(self.objects, self.settings.lease_seconds)

    @cached_property
    def online(self) -> OnlineStore:
        return OnlineStore(self.settings.redis_url, self.settings.s3.prefix)

    @cached_property
    def champion_tracking(self) -> ChampionTracking:
        # Imports NumPy, of which the feature service has no need.
        from mlplatform.io.champion_tracking import ChampionTracking

        return ChampionTracking(self.objects, self.settings)

    @cached_property
    def _tables(self) -> dict[str, Table]:
        return {name: Table(spec, self.objects) for name, spec in TABLES.items()}

    def table(self, name: str) -> Table:
        return self._tables[name]
