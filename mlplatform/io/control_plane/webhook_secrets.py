"""Secrets of webhooks, and what is signed with them, as Standard Webhooks 1.0 specifies it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import uuid

from mlplatform.io.signing import kept_key
from mlplatform.settings import ConfigurationError, Settings

PREFIX = "whsec_"
LEAST_KEY_BYTES = 32


class WebhookSecrets:
    """Makes the secret of each webhook of one key, so that none has to be kept.

    Raises:
        ConfigurationError: the key is too short.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) < LEAST_KEY_BYTES:
            raise ConfigurationError(
                f"MLPLATFORM_WEBHOOK_KEY has {len(key)} bytes, and needs {LEAST_KEY_BYTES}:"
                " `openssl rand -hex 32` makes one"
            )
        self._key = key

    @classmethod
    def from_settings(cls, settings: Settings) -> WebhookSecrets:
        """Takes `MLPLATFORM_WEBHOOK_KEY`, else, in `local`, the key in the data directory.

        Raises:
            ConfigurationError: there is none, or it is too short.
        """
        if settings.webhook_key:
            return cls(settings.webhook_key.encode())
        if settings.environment == "local":
            return cls(kept_key(settings.data_directory / "keys" / "webhook.key"))
        raise ConfigurationError(
            "MLPLATFORM_WEBHOOK_KEY is not set: webhooks are signed with secrets that are made of it, the"
            " same for each replica; `openssl rand -hex 32` makes one"
        )

    def secret(self, webhook_id: uuid.UUID, number: int) -> str:
        """The secret that a webhook has after `number - 1` changes."""
        made = hmac.new(self._key, f"webhook {webhook_id} {number}".encode(), hashlib.sha256).digest()
        return PREFIX + base64.b64encode(made).decode()


def signature(secret: str, message_id: str, timestamp: int, body: bytes) -> str:
    """One of the signatures in the header `webhook-signature`."""
    key = base64.b64decode(secret.removeprefix(PREFIX))
    signed = hmac.new(key, f"{message_id}.{timestamp}.".encode() + body, hashlib.sha256).digest()
    return f"v1,{base64.b64encode(signed).decode()}"
