"""Secrets from the variables of the process: Kubernetes and CI put them there."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mlplatform.io.plugins.configuration import refuse_unknown_keys
from mlplatform.io.plugins.secrets_providers import SecretMissing
from mlplatform.settings import Settings


class EnvironmentSecrets:
    """A secret is the environment variable of its name; one that is empty counts as missing."""

    config_keys: tuple[str, ...] = ()

    def __init__(self, config: Mapping[str, Any], settings: Settings, root: Path) -> None:
        refuse_unknown_keys("secrets provider env", config, self.config_keys, SecretMissing)
        self._variables = settings.variables

    def get(self, name: str) -> str:
        value = self._variables.get(name)
        if not value:
            raise SecretMissing(
                f"secret {name!r} is not set: set the environment variable {name} of this process"
            )
        return value
