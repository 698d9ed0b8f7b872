"""Runs and models in MLflow: on a server, or in an SQLite database of the project."""

from __future__ import annotations

import json
import logging
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from mlplatform.domain.batch.profile import Tracking
from mlplatform.io.plugins.model_registries import Registered, RegistryError, TrackedRun
from mlplatform.io.plugins.model_registries.mlflow_connection import (
    MLflowConnection,
    against_others,
    unless_missing,
)
from mlplatform.io.plugins.model_registries.mlflow_model import BUNDLE, save_model
from mlplatform.io.plugins.model_registries.tracking_uri import TrackingStore
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

log = logging.getLogger(__name__)
Found = TypeVar("Found")

CHALLENGER, CHAMPION = "challenger", "champion"
# Of a run and of its model version: what made it.
KEY_TAG = "mlplatform.key"
DIGEST_TAG = "mlplatform.dataset_digest"
MODEL_PATH = "model"
FINISHED, FAILED = "FINISHED", "FAILED"


class MLflowRegistry:
    """Uses no state of MLflow's module, such as the active run: two registries in one process do not meet."""

    def __init__(self, tracking: Tracking, settings: Settings, root: Path) -> None:
        # An address only: a registry that nobody uses asks for no server.
        self._connection = MLflowConnection(tracking, settings, root)

    @property
    def _client(self) -> MlflowClient:
        return self._connection.client

    @property
    def _store(self) -> TrackingStore:
        return self._connection.store

    def log(self, run: TrackedRun) -> Registered:
        if "'" in run.key:
            raise ValueError(f"the key {run.key!r} has a quote, by which it could not be searched")
        with self._connection.told():
            experiment = self._connection.experiment(run.experiment)
            for earlier in self._client.search_runs([experiment], f"tags.\"{KEY_TAG}\" = '{run.key}'"):
                version = self._version(earlier)
                if earlier.info.status == FINISHED and version:
                    return self._registered(earlier, version)
                if earlier.info.status not in (FINISHED, FAILED):
                    self._discard(earlier.info.run_id)
            return self._log_anew(run, experiment)

    def promote(self, model_name: str, version: str) -> None:
        with self._connection.told():
            against_others(lambda: self._client.set_registered_model_alias(model_name, CHAMPION, version))
            model = self._client.get_registered_model(model_name)
            if str(model.aliases.get(CHALLENGER)) == version:
                against_others(lambda: self._client.delete_registered_model_alias(model_name, CHALLENGER))

    def champion(self, model_name: str) -> Registered | None:
        with self._connection.told():
            model = unless_missing(lambda: self._client.get_registered_model(model_name))
            number = model.aliases.get(CHAMPION) if model else None
            if number is None:
                return None
            version = self._client.get_model_version(model_name, str(number))
            if not version.run_id:
                raise RegistryError(
                    f"the champion of {model_name} in MLflow at {self._store.shown}, version {number}, names "
                    "no run: give the alias to a version that a training pipeline made"
                )
            return self._registered(self._client.get_run(version.run_id), version)

    def resolve(self, model_name: str, run_id: str) -> Registered:
        if run_id == CHAMPION:
            if champion := self.champion(model_name):
                return champion
            raise RegistryError(
                f"the model {model_name} has no champion in MLflow at {self._store.shown}: train one "
                "(a run of the training pipeline promotes the first), or name a run id"
            )
        with self._connection.told():
            run = unless_missing(lambda: self._client.get_run(run_id))
            where = f"MLflow at {self._store.shown}"
            if run is None:
                raise RegistryError(f"there is no run {run_id!r} in {where}; {self._known_runs(model_name)}")
            if run.info.lifecycle_stage != "active":
                raise RegistryError(
                    f"the run {run_id} was deleted in {where}: restore it there, or name another"
                )
            if run.info.status != FINISHED:
                raise RegistryError(
                    f"the run {run_id} in {where} is {run.info.status}, not {FINISHED}; "
                    f"{self._known_runs(model_name)}"
                )
            version = self._version(run, model_name)
            if version is None:
                raise RegistryError(
                    f"the run {run_id} in {where} has no model {model_name}; {self._known_runs(model_name)}"
                )
            return self._registered(run, version)

    def fetch(self, model: Registered, directory: Path) -> Path:
        with self._connection.told():
            directory.mkdir(parents=True, exist_ok=True)
            place = f"{MODEL_PATH}/{BUNDLE}"
            try:
                return Path(self._client.download_artifacts(model.run_id, place, str(directory)))
            except Exception:
                if self._client.list_artifacts(model.run_id, place):
                    raise
                raise RegistryError(
                    f"the model of run {model.run_id} is gone from MLflow at {self._store.shown}: put its"
                    " files back, or name another run"
                ) from None

    def check(self) -> str:
        with self._connection.told():
            self._client.search_experiments(max_results=1)
        import mlflow

        return f"MLflow {mlflow.__version__}, {self._store.shown}"

    def _log_anew(self, run: TrackedRun, experiment: str) -> Registered:
        name = run.tags.get("pipeline_name", run.model_name)
        tags = {
            "mlflow.source.name": "mlplatform",
            "mlflow.source.type": "JOB",
            "mlflow.user": run.tags.get("owner", "mlplatform"),
            **{_name(key): _cut(f"tag {key}", value, 8000) for key, value in run.tags.items()},
            KEY_TAG: run.key,
            DIGEST_TAG: run.dataset_digest,
        }
        created = self._client.create_run(experiment, tags=tags, run_name=name)
        run_id = created.info.run_id
        try:
            self._log_values(run, run_id)
            described = self._log_files(run, run_id)
            # By this tag the UI knows which of the run's folders is a model.
            self._client.set_tag(run_id, "mlflow.log-model.history", json.dumps([described.get_tags_dict()]))
            version = self._register(run, created)
            self._client.set_terminated(run_id, FINISHED)
        except BaseException:
            self._discard(run_id)
            raise
        return self._registered(created, version)

    def _log_values(self, run: TrackedRun, run_id: str) -> None:
        from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param
        from mlflow.utils.validation import (
            MAX_DATASET_DIGEST_SIZE,
            MAX_METRICS_PER_BATCH,
            MAX_PARAM_VAL_LENGTH,
            MAX_PARAMS_TAGS_PER_BATCH,
        )

        now = time.time_ns() // 1_000_000
        metrics = [Metric(_name(key), float(value), now, 0) for key, value in run.metrics.items()]
        params = [
            Param(_name(key), _cut(f"parameter {key}", _text(value), MAX_PARAM_VAL_LENGTH))
            for key, value in run.parameters.items()
        ]
        for some in _chunks(params, MAX_PARAMS_TAGS_PER_BATCH):
            self._client.log_batch(run_id, params=some)
        for some in _chunks(metrics, MAX_METRICS_PER_BATCH):
            self._client.log_batch(run_id, metrics=some)
        dataset = Dataset(
            name=run.dataset,
            digest=run.dataset_digest[:MAX_DATASET_DIGEST_SIZE],
            source_type="mlplatform",
            source=json.dumps({"table": run.dataset, "digest": run.dataset_digest}),
        )
        context = [InputTag("mlflow.data.context", "training")]
        inputs = [DatasetInput(dataset, context)]
        against_others(lambda: self._client.log_inputs(run_id, datasets=inputs))

    def _log_files(self, run: TrackedRun, run_id: str) -> Any:
        """Uploads plots, tables and the model; returns the model's description."""
        with tempfile.TemporaryDirectory(prefix="mlplatform-") as folder:
            directory = Path(folder, "files")
            files = {f"plots/{plot.name.removesuffix('.svg')}.svg": plot.svg for plot in run.plots}
            files |= {f"tables/{name}": text for name, text in run.tables.items()}
            for path, text in files.items():
                (directory / path).parent.mkdir(parents=True, exist_ok=True)
                (directory / path).write_text(text)
            directory.mkdir(exist_ok=True)
            described = save_model(run, run_id, MODEL_PATH, directory / MODEL_PATH)
            self._client.log_artifacts(run_id, str(directory))
        return described

    def _register(self, run: TrackedRun, created: Run) -> ModelVersion:
        from mlflow.exceptions import MlflowException

        client, name = self._client, run.model_name
        try:
            client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        version = client.create_model_version(
            name,
            f"{created.info.artifact_uri}/{MODEL_PATH}",
            created.info.run_id,
            tags={KEY_TAG: run.key},
            await_creation_for=0,
        )
        against_others(lambda: client.set_registered_model_alias(name, CHALLENGER, version.version))
        return version

    def _discard(self, run_id: str) -> None:
        """Marks a run that did not get to its end as failed, and takes its model out of the registry."""
        try:
            for version in self._client.search_model_versions(f"run_id = '{run_id}'"):
                self._client.delete_model_version(version.name, version.version)
            self._client.set_terminated(run_id, FAILED)
        except Exception as error:
            # What went wrong before is to be told, and an unfinished run is discarded by the next attempt.
            log.warning("MLflow: the run %s stays unfinished: %s", run_id, self._connection.redacted(error))

    def _version(self, run: Run, model_name: str | None = None) -> ModelVersion | None:
        """The registered model of a run, of that name if one is given."""
        versions = self._client.search_model_versions(f"run_id = '{run.info.run_id}'")
        return next((each for each in versions if model_name in (None, each.name)), None)

    def _registered(self, run: Run, version: ModelVersion) -> Registered:
        url = ""
        if self._store.is_server:
            base = self._store.shown.rstrip("/")
            url = f"{base}/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}"
        return Registered(run.info.run_id, str(version.version), url)

    def _known_runs(self, model_name: str) -> str:
        """Where a person finds the run that was meant."""
        versions = self._client.search_model_versions(f"name = '{model_name}'", max_results=3)
        newest = [version.run_id for version in versions if version.run_id]
        if not newest:
            return f"the model {model_name} is not registered yet: run its training pipeline first"
        known = f"newest runs of the model {model_name}: {', '.join(newest)}"
        # It may be gone for good, while its model's version is still registered.
        if run := unless_missing(lambda: self._client.get_run(newest[0])):
            experiment = self._client.get_experiment(run.info.experiment_id)
            known += f"; all stand in the experiment {experiment.name!r}"
        return f"{known}; or write `run_id: champion`"


def _chunks(values: list[Found], size: int) -> Iterator[list[Found]]:
    for start in range(0, len(values), size):
        yield values[start : start + size]


def _name(key: str) -> str:
    """The name with what MLflow refuses replaced."""
    return re.sub(r"[^\w\-. :/]", "_", key)[:250]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _cut(what: str, text: str, limit: int) -> str:
    if len(text) <= limit:
        return text
    log.warning("MLflow: the %s has %d characters and is cut after %d", what, len(text), limit)
    return text[:limit]
