"""Webhooks, as a client has them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from uuid import UUID

from mlplatform.client.connection import Connection, segment
from mlplatform.client.models import SecretWebhook, Tried, Webhook

WEBHOOKS = "/api/v1/webhooks"


class Webhooks:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def create(self, url: str, *, types: Sequence[str] = (), after: int | None = None) -> SecretWebhook:
        """Has events posted to an address, signed as Standard Webhooks specifies it.

        Args:
            types: `job.success`, or `job.*` for all of jobs; none: all there are.
            after: id of the event behind which to begin; None: from now on.

        Returns:
            With the secret, which is not told again.
        """
        return self._connection.post(
            SecretWebhook, WEBHOOKS, {"url": url, "types": list(types), "after": after}
        )

    def list(self, *, page_size: int = 100) -> Iterator[Webhook]:
        """The newest first."""
        return self._connection.pages(Webhook, WEBHOOKS, limit=page_size)

    def get(self, webhook_id: UUID) -> Webhook:
        return self._connection.get(Webhook, f"{WEBHOOKS}/{segment(webhook_id)}")

    def change(
        self,
        webhook_id: UUID,
        *,
        url: str | None = None,
        types: Sequence[str] | None = None,
        paused: bool | None = None,
    ) -> Webhook:
        """What is None stays as it is."""
        change = {"url": url, "types": None if types is None else list(types), "paused": paused}
        body = {name: value for name, value in change.items() if value is not None}
        answer = self._connection.ask("PATCH", f"{WEBHOOKS}/{segment(webhook_id)}", body=body)
        return Webhook.model_validate_json(answer.content)

    def delete(self, webhook_id: UUID) -> None:
        self._connection.ask("DELETE", f"{WEBHOOKS}/{segment(webhook_id)}")

    def test(self, webhook_id: UUID) -> Tried:
        """Posts an event `webhook.test` to it now, and tells what came of it."""
        return self._connection.post(Tried, f"{WEBHOOKS}/{segment(webhook_id)}/test")

    def rotate(self, webhook_id: UUID) -> SecretWebhook:
        """Another secret; for a day, the one before signs too."""
        return self._connection.post(SecretWebhook, f"{WEBHOOKS}/{segment(webhook_id)}/rotate")
