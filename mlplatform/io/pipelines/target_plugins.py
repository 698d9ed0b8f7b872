"""The plugins that a target of `profiles.yaml` names."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlplatform.io.pipelines.secrets import redact, reveal
from mlplatform.io.plugins import plugin
from mlplatform.settings import Settings

if TYPE_CHECKING:
    from mlplatform.domain.batch.profile import Target
    from mlplatform.io.plugins.data_connectors import DataConnector
    from mlplatform.io.plugins.model_registries import ModelRegistry
    from mlplatform.io.plugins.secrets_providers import SecretsProvider
    from mlplatform.io.plugins.storages import Storage


@dataclass
class TargetPlugins:
    """Each is made when it is first asked for; only then are its secrets looked up.

    Asking raises UnknownPlugin, SecretMissing, or what the plugin says of its configuration.
    """

    target: Target
    settings: Settings
    root: Path
    _revealed: set[str] = field(default_factory=set, init=False, repr=False)

    @cached_property
    def secrets(self) -> SecretsProvider:
        chosen = self.target.secrets
        return plugin("secrets_providers", chosen.provider)(chosen.config, self.settings, self.root)

    @cached_property
    def connector(self) -> DataConnector:
        chosen = self.target.data_connector
        return plugin("data_connectors", chosen.type)(self.reveal(chosen.config), self.settings, self.root)

    @cached_property
    def storage(self) -> Storage:
        chosen = self.target.storage
        return plugin("storages", chosen.type)(self.reveal(chosen.config), self.settings, self.root)

    def registry(self, name: str) -> ModelRegistry:
        tracking = self.target.mlflow
        revealed = type(tracking).model_validate(self.reveal(tracking.model_dump()))
        return plugin("model_registries", name)(revealed, self.settings, self.root)

    @property
    def h2o_url(self) -> str | None:
        return self.reveal(self.target.h2o.url)

    def secret(self, name: str) -> str:
        """The value of a secret, which `redact` hides from now on."""
        value = self.secrets.get(name)
        self._revealed.add(value)
        return value

    def reveal(self, config: Any) -> Any:
        """The configuration with the values of its secrets."""
        return reveal(config, self.secret)

    def redact(self, text: str) -> str:
        """The text without the secrets that were looked up."""
        return redact(text, tuple(self._revealed))
