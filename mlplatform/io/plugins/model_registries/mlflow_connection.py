"""One store of MLflow: its client, and its failures as one exception that tells no secret."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from mlplatform.domain.batch.profile import Tracking
from mlplatform.io.plugins.model_registries import RegistryError
from mlplatform.io.plugins.model_registries.tracking_uri import SQLITE, TrackingStore, tracking_store
from mlplatform.settings import Settings, prepare_mlflow

if TYPE_CHECKING:
    from mlflow import MlflowClient

log = logging.getLogger(__name__)
Found = TypeVar("Found")

# Without it, MLflow 3 shows an experiment as one of language models.
EXPERIMENT_KIND = "mlflow.experimentKind"
# A server that restarts answers again within this time.
PATIENCE_SECONDS = 8.0
PROBE_SECONDS = 3.0
RACES = 5


class MLflowConnection:
    """Opened when it is first used.

    Args:
        patience: seconds for which a server that does not answer is asked again before the first use,
            `PATIENCE_SECONDS` unless given; 0: it is asked once, and has a second.
    """

    def __init__(
        self, tracking: Tracking, settings: Settings, root: Path, patience: float | None = None
    ) -> None:
        self._tracking = tracking
        self._settings = settings
        self._root = root
        self._patience = patience

    @cached_property
    def store(self) -> TrackingStore:
        """Raises: ConfigurationError: nothing says where MLflow is."""
        uri = self._tracking.tracking_uri or self._settings.mlflow_tracking_uri
        store = tracking_store(uri, self._tracking.artifact_location, self._root)
        if store.mapped_from:
            _tell_mapped(store)
        return store

    @cached_property
    def client(self) -> MlflowClient:
        if self.store.is_server:
            _wait_for(self.store.uri, PATIENCE_SECONDS if self._patience is None else self._patience)
        prepare_mlflow()
        try:
            from mlflow import MlflowClient
        except ModuleNotFoundError as error:
            raise RegistryError(
                f"MLflow is not installed ({error.name}): pip install 'mlplatform[mlflow]'"
            ) from error
        if self.store.uri.startswith(SQLITE):
            _make_database(self.store.uri)
        return MlflowClient(tracking_uri=self.store.uri, registry_uri=self.store.uri)

    def experiment(self, name: str) -> str:
        """The experiment's id; it is made if it is not there, by one of those who try."""
        from mlflow.exceptions import MlflowException

        found = self.client.get_experiment_by_name(name)
        if found is None:
            try:
                return self.client.create_experiment(
                    name, self.store.artifact_location, {EXPERIMENT_KIND: "custom_model_development"}
                )
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
                found = self.client.get_experiment_by_name(name)
        if found is None or found.lifecycle_stage != "active":
            raise RegistryError(
                f"the experiment {name!r} was deleted in MLflow at {self.store.shown}: restore it there, or "
                "name another (`project.experiment_name`)"
            )
        return found.experiment_id

    @contextmanager
    def told(self) -> Iterator[None]:
        """Turns every failure of MLflow into a RegistryError, without the secrets of its URI."""
        try:
            self.client  # noqa: B018
            yield
        except RegistryError:
            raise
        except Exception as error:
            if not isinstance(error, _failures()):
                raise
            # The chain of causes could name the URI; its end is in the message.
            raise self._failure(error) from (None if self.store.secrets else error)

    def redacted(self, error: Exception) -> str:
        """Its first line without secrets."""
        text = next(iter(str(error).strip().splitlines()), type(error).__name__)
        for secret in self.store.secrets:
            text = text.replace(secret, "***")
        return text

    def _failure(self, error: Exception) -> RegistryError:
        remedy = "look at `mlplatform status`" if not self._tracking.tracking_uri else "does the server run?"
        if not self.store.is_server:
            remedy = "is its folder writable, and the disk not full?"
        return RegistryError(f"MLflow at {self.store.shown}: {self.redacted(error)}; {remedy}")


def against_others(write: Callable[[], object]) -> None:
    """Writes what MLflow looks for before it inserts it: two who do so at once meet a unique constraint."""
    from mlflow.exceptions import MlflowException

    for attempt in range(RACES):
        try:
            write()
        except MlflowException as error:
            if error.error_code != "BAD_REQUEST" or attempt == RACES - 1:
                raise
        else:
            return


def unless_missing(ask: Callable[[], Found]) -> Found | None:
    from mlflow.exceptions import MlflowException

    try:
        return ask()
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise


def _failures() -> tuple[type[Exception], ...]:
    """What a store of MLflow raises. Of libraries that are loaded, since any other has raised nothing."""
    names = {"mlflow.exceptions": "MlflowException", "sqlalchemy.exc": "SQLAlchemyError"}
    names["requests.exceptions"] = "RequestException"
    return (
        OSError,
        *(getattr(sys.modules[name], kind) for name, kind in names.items() if name in sys.modules),
    )


def _wait_for(uri: str, patience: float) -> None:
    """Returns when the server answers, whatever it answers; MLflow itself would try for minutes.

    Raises:
        requests.RequestException: it did not for so many seconds.
    """
    import requests

    deadline = time.monotonic() + patience
    probe = min(PROBE_SECONDS, patience or 1)
    while True:
        try:
            health = requests.get(f"{uri.rstrip('/')}/health", timeout=probe)
            if health.status_code < 500:
                return
            raise requests.ConnectionError("the server answers with an error")
        except requests.RequestException:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)


@cache
def _tell_mapped(store: TrackingStore) -> None:
    """Once in a process, in which each step has a connection of its own."""
    log.warning(
        "MLflow no longer writes to folders: %s becomes %s, with artefacts in %s",
        *(store.mapped_from, store.shown, store.artifact_location),
    )


def _make_database(uri: str) -> None:
    """Makes the tables if they are missing; MLflow's client alone would let two processes both try."""
    from mlflow.store.db.utils import _safe_initialize_tables, create_sqlalchemy_engine_with_retry

    # It tells of each table, in the middle of what a run says.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    Path(uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
    engine = create_sqlalchemy_engine_with_retry(uri)
    _safe_initialize_tables(engine)
    engine.dispose()
