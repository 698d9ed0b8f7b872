"""What a step is given beside its inputs, and what it reports beside its outputs."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self
from weakref import finalize

from mlplatform.domain.batch.data_checks import CheckError
from mlplatform.domain.batch.feature_selection import SelectionError
from mlplatform.domain.batch.features import FeatureError
from mlplatform.domain.batch.joins import JoinError
from mlplatform.domain.batch.labels import LabelError
from mlplatform.domain.batch.manifest import Manifest
from mlplatform.domain.batch.metrics import MetricError
from mlplatform.domain.batch.pipeline import Pipeline
from mlplatform.domain.batch.splitting import SplitError
from mlplatform.domain.batch.stability import StabilityError
from mlplatform.domain.batch.transforms import TransformError
from mlplatform.domain.batch.windows import WindowError
from mlplatform.io.archives import ArchiveError
from mlplatform.io.model_bundle import BundleRefused
from mlplatform.io.object_store import StoreUnavailable
from mlplatform.io.pipelines.secrets import redact, reveal
from mlplatform.io.plugins import plugin
from mlplatform.io.plugins.data_connectors import DataConnector, DataError, DataUnavailable
from mlplatform.io.plugins.frameworks import Framework, FrameworkError
from mlplatform.io.plugins.model_registries import ModelRegistry, Plot, RegistryError
from mlplatform.io.plugins.secrets_providers import SecretMissing, SecretsProvider
from mlplatform.io.plugins.storages import Storage, StorageError
from mlplatform.io.project_code import ProjectCodeError
from mlplatform.io.signing import Signer
from mlplatform.settings import ConfigurationError, Settings


class StepFailed(Exception):
    """A step cannot go on; the message says why and the remedy."""


# Their messages name what is wrong and the remedy; to try again would change nothing.
KNOWN_ERRORS = (
    StepFailed,
    ArchiveError,
    BundleRefused,
    CheckError,
    DataError,
    FeatureError,
    LabelError,
    MetricError,
    ProjectCodeError,
    SelectionError,
    SplitError,
    StabilityError,
    TransformError,
    WindowError,
    FrameworkError,
    JoinError,
    RegistryError,
    StorageError,
    StoreUnavailable,
    SecretMissing,
    ConfigurationError,
)

# Of these, the errors that pass by themselves.
TRANSIENT_ERRORS = (DataUnavailable, StoreUnavailable)


@dataclass(frozen=True)
class CheckOutcome:
    """`warning` says that one which did not pass hinders nothing, blocking or not."""

    passed: bool
    description: str
    figures: Mapping[str, float | int | str] = field(default_factory=dict)
    warning: bool = False


@dataclass
class Report:
    """What is worth knowing of a step: outcomes of its checks by name, figures and plots by artefact."""

    checks: dict[str, CheckOutcome] = field(default_factory=dict)
    figures: dict[str, dict[str, Any]] = field(default_factory=dict)
    plots: dict[str, list[Plot]] = field(default_factory=dict)

    def check(
        self,
        name: str,
        passed: bool,
        description: str,
        figures: Mapping[str, float | int | str] | None = None,
        warning: bool = False,
    ) -> None:
        self.checks[name] = CheckOutcome(bool(passed), description, figures or {}, warning)

    def tell(self, artefact: str, **figures: Any) -> None:
        self.figures.setdefault(artefact, {}).update(figures)


@dataclass
class Platform:
    """The profile's plugins, made when a step first asks; only then are their secrets looked up."""

    manifest: Manifest
    settings: Settings
    root: Path
    _revealed: set[str] = field(default_factory=set, init=False, repr=False)

    @cached_property
    def secrets(self) -> SecretsProvider:
        chosen = self.manifest.target.secrets
        return plugin("secrets_providers", chosen.provider)(chosen.config, self.settings, self.root)

    @cached_property
    def connector(self) -> DataConnector:
        chosen = self.manifest.target.data_connector
        return plugin("data_connectors", chosen.type)(self.reveal(chosen.config), self.settings, self.root)

    @cached_property
    def storage(self) -> Storage:
        chosen = self.manifest.target.storage
        return plugin("storages", chosen.type)(self.reveal(chosen.config), self.settings, self.root)

    @cached_property
    def registry(self) -> ModelRegistry:
        tracking = self.manifest.target.mlflow
        revealed = type(tracking).model_validate(self.reveal(tracking.model_dump()))
        serving = self.manifest.pipeline.serving
        name = serving.model_source.registry if serving else "mlflow"
        return plugin("model_registries", name)(revealed, self.settings, self.root)

    @cached_property
    def framework(self) -> Framework:
        return plugin("frameworks", self.manifest.pipeline.training.model_training.framework)()

    @cached_property
    def signer(self) -> Signer:
        return Signer.from_settings(self.settings)

    def reveal(self, config: Any) -> Any:
        """The configuration with the values of its secrets."""
        return reveal(config, self._get)

    def redact(self, text: str) -> str:
        """The text without the secrets that were looked up."""
        return redact(text, self._revealed)

    def _get(self, name: str) -> str:
        value = self.secrets.get(name)
        self._revealed.add(value)
        return value


@dataclass
class StepContext:
    """`run_id` is the identity of the run: that of its first attempt, when it is executed again.

    To be used in a `with` block, at whose end its folders go away.
    """

    platform: Platform
    run_id: str
    log: Callable[[str], None]
    report: Report = field(default_factory=Report)
    _folders: list[finalize] = field(default_factory=list, init=False, repr=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for remove in self._folders:
            remove()

    def folder(self) -> Path:
        """A new empty folder, for an output that is saved after the step's function has returned."""
        folder = tempfile.mkdtemp(prefix="mlplatform-")
        # Dagster does not resume a step whose output cannot be saved: then it goes with the context.
        self._folders.append(finalize(self, shutil.rmtree, folder, ignore_errors=True))
        return Path(folder)

    @property
    def manifest(self) -> Manifest:
        return self.platform.manifest

    @property
    def pipeline(self) -> Pipeline:
        return self.platform.manifest.pipeline
