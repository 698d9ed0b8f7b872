"""Changes of champions in MLflow: one run each, also if MLflow was down meanwhile or the process died."""

from __future__ import annotations

import hashlib
import json
import math
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mlplatform.domain.champion import Change
from mlplatform.io.object_store import Conflict, ObjectStore
from mlplatform.settings import ConfigurationError, Settings, hurried_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from mlplatform.io.plugins.model_registries.tracking_uri import TrackingStore

EXPERIMENT = "online_learning"
PREFIX = "champion_tracking"
KEY_TAG = "mlplatform.key"
# What a run spends on tracking at most; what is left over is tracked by the next run.
BUDGET_SECONDS = 1.5
REQUEST_SECONDS = 2


@dataclass(frozen=True)
class Described:
    """A change of champion as MLflow shows it. Metrics that are not finite are left out."""

    name: str
    parameters: Mapping[str, object]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Outcome:
    """How many changes were tracked and how many still wait; `failure` is why, if it is not lack of time."""

    tracked: int = 0
    waiting: int = 0
    failure: str | None = None
    url: str | None = None


@dataclass
class _Ledger:
    """Up to which offset the changes of each series are tracked.

    `id` tells this log of observations from others that share the MLflow.
    """

    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    tracked: dict[str, int] = field(default_factory=dict)
    etag: str | None = None

    def key(self, series_id: str, change: Change) -> str:
        """Names the change. A digest, since a quote could not be searched for."""
        content = json.dumps([self.id, series_id, change.offset, change.champion])
        return hashlib.sha256(content.encode()).hexdigest()[:32]


class ChampionTracking:
    """Compares the changes that are committed with those that are tracked, and tracks the rest.

    A failure of MLflow is part of the outcome and no exception: nobody waits for what stands there.

    Args:
        seconds: within which a call ends, not counting one request that is under way and, where there is
            something to track, the import of MLflow.
    """

    def __init__(self, store: ObjectStore, settings: Settings, seconds: float = BUDGET_SECONDS) -> None:
        self._store = store
        self._settings = settings
        self._seconds = seconds

    def track(
        self,
        shard: int,
        changes: Mapping[str, Sequence[Change]],
        describe: Callable[[str, Change], Described],
    ) -> Outcome | None:
        """Tracks what is not tracked yet of the changes of each series, each in order.

        None: no MLflow is configured.
        """
        if not any(changes.values()):
            return Outcome()
        try:
            self._settings.mlflow_tracking_uri  # noqa: B018
        except ConfigurationError:
            return None
        ledger = self._load(shard)
        waiting = [
            (series_id, change)
            for series_id, each in sorted(changes.items())
            for change in each
            if change.offset > ledger.tracked.get(series_id, -1)
        ]
        return self._track(shard, ledger, waiting, describe) if waiting else Outcome()

    def _track(
        self,
        shard: int,
        ledger: _Ledger,
        waiting: list[tuple[str, Change]],
        describe: Callable[[str, Change], Described],
    ) -> Outcome:
        # Most runs have nothing to track, and do not pay for it.
        from mlplatform.domain.batch.profile import Tracking
        from mlplatform.io.plugins.model_registries import RegistryError
        from mlplatform.io.plugins.model_registries.mlflow_connection import MLflowConnection

        connection = MLflowConnection(Tracking(), self._settings, Path.cwd(), patience=0)
        tracked, failure, url = 0, None, None
        try:
            if ledger.etag is None:
                # Before the first run in MLflow: its key must be known to whoever comes after a crash.
                self._save(shard, ledger)
            with hurried_mlflow(REQUEST_SECONDS), connection.told():
                client = connection.client
                deadline = time.monotonic() + self._seconds
                experiment = connection.experiment(EXPERIMENT)
                url = _url(connection.store, experiment)
                for series_id, change in waiting:
                    # One at least, so that a slow server does not stop it for good.
                    if tracked and time.monotonic() > deadline:
                        break
                    _log(client, experiment, ledger.key(series_id, change), describe(series_id, change))
                    ledger.tracked[series_id] = change.offset
                    tracked += 1
        except (RegistryError, Conflict) as error:
            failure = str(error)
        if tracked:
            with suppress(Conflict):
                # Another run tracks too. What is not noted here is looked up in MLflow, and found.
                self._save(shard, ledger)
        return Outcome(tracked, len(waiting) - tracked, failure, url)

    def _load(self, shard: int) -> _Ledger:
        stored = self._store.get(f"{PREFIX}/{shard}.json")
        if stored is None:
            return _Ledger()
        return _Ledger(**json.loads(stored.content), etag=stored.etag)

    def _save(self, shard: int, ledger: _Ledger) -> None:
        content = json.dumps({"id": ledger.id, "tracked": ledger.tracked}).encode()
        ledger.etag = self._store.put_if(f"{PREFIX}/{shard}.json", content, ledger.etag)


def _url(store: TrackingStore, experiment: str) -> str | None:
    return f"{store.shown.rstrip('/')}/#/experiments/{experiment}" if store.is_server else None


def _log(client: MlflowClient, experiment: str, key: str, change: Described) -> None:
    """Makes the run of a change, or what is missing of it."""
    from mlflow.entities import Metric, Param

    found = client.search_runs([experiment], f"tags.\"{KEY_TAG}\" = '{key}'", max_results=1)
    if found and found[0].info.status == "FINISHED":
        return
    if found:
        run = found[0]
    else:
        tags = {**change.tags, KEY_TAG: key, "mlflow.source.name": "mlplatform", "mlflow.source.type": "JOB"}
        run = client.create_run(experiment, tags=tags, run_name=change.name)
    now = time.time_ns() // 1_000_000
    client.log_batch(
        run.info.run_id,
        metrics=[Metric(name, each, now, 0) for name, each in change.metrics.items() if math.isfinite(each)],
        # A parameter cannot change: one that an earlier attempt has logged stays as it is.
        params=[
            Param(name, str(value))
            for name, value in change.parameters.items()
            if name not in run.data.params
        ],
    )
    client.set_terminated(run.info.run_id)
