"""Hands events to those who asked for them: each at least once, in order; nobody waits for another."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from uuid import UUID

from sqlalchemy import RowMapping

from mlplatform.errors import TransientError
from mlplatform.io.control_plane import webhooks
from mlplatform.io.control_plane.database import Database
from mlplatform.io.control_plane.publishing import Publisher
from mlplatform.io.control_plane.webhook_requests import WebhookPublisher
from mlplatform.io.control_plane.webhook_secrets import WebhookSecrets
from mlplatform.settings import Settings

log = logging.getLogger(__name__)

AT_ONCE = 16
# After so many it is kept how far it went: whoever takes over begins there.
EVENTS_AT_ONCE = 10


class Delivery:
    """The rounds of a duty, each of which begins what can be done, and waits for none of it.

    Args:
        publisher_of: what the events for a row of the table `webhooks` are given to.
    """

    def __init__(self, database: Database, publisher_of: Callable[[RowMapping], Publisher]) -> None:
        self._database = database
        self._publisher_of = publisher_of
        self._threads = ThreadPoolExecutor(AT_ONCE, "delivery")
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._busy: set[UUID] = set()

    def round(self) -> None:
        """
        Raises:
            TransientError: the database does not answer.
        """
        with self._database.transaction() as connection:
            due = webhooks.due(connection)
        for webhook_id in due:
            with self._lock:
                if webhook_id in self._busy:
                    continue
                self._busy.add(webhook_id)
            self._threads.submit(self._deliver, webhook_id)

    def close(self) -> None:
        """Returns when what is being posted was answered."""
        self._ending.set()
        self._threads.shutdown(cancel_futures=True)

    def _deliver(self, webhook_id: UUID) -> None:
        try:
            while not self._ending.is_set() and self._some(webhook_id):
                pass
        except TransientError as error:
            log.warning("webhook %s waits: %s", webhook_id, error)
        except Exception:
            log.exception("webhook %s failed, and is tried again", webhook_id)
        finally:
            with self._lock:
                self._busy.discard(webhook_id)

    def _some(self, webhook_id: UUID) -> bool:
        """Returns whether there may be more to do at once."""
        with self._database.transaction() as connection:
            found = webhooks.next_events(connection, webhook_id, EVENTS_AT_ONCE)
        if found is None:
            return False
        webhook, events = found
        published = self._publisher_of(webhook).publish(events)
        with self._database.transaction() as connection:
            webhooks.keep(connection, webhook, published)
        if published.trouble:
            log.warning("webhook %s: %s", webhook_id, published.trouble)
        return published.trouble is None


def webhook_publishers(settings: Settings) -> Callable[[RowMapping], WebhookPublisher]:
    """What posts to the address of a webhook, with the secrets that it has now."""

    def publisher_of(webhook: RowMapping) -> WebhookPublisher:
        made = WebhookSecrets.from_settings(settings)
        number, both_until = webhook["secret_number"], webhook["both_secrets_until"]
        numbers = [number, number - 1] if both_until and both_until > datetime.now(UTC) else [number]
        secrets = [made.secret(webhook["id"], each) for each in numbers]
        return WebhookPublisher(webhook["url"], secrets, public=settings.environment != "local")

    return publisher_of
