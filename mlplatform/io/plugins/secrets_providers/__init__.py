"""Where the values of `{{ secret('NAME') }}` come from."""

from __future__ import annotations

from typing import Protocol

from mlplatform.errors import PlatformError


class SecretMissing(PlatformError):
    """There is no such secret; the message names it and where it was looked for."""


class SecretsProvider(Protocol):
    """Made as `Provider(config, settings, root)`."""

    # What its configuration may hold; other keys are refused when the profile is validated.
    config_keys: tuple[str, ...]

    def get(self, name: str) -> str:
        """Raises SecretMissing."""
        ...
