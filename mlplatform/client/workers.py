"""Workers, as a client has them."""

from __future__ import annotations

from collections.abc import Iterator
from uuid import UUID

from mlplatform.client.connection import Connection, segment
from mlplatform.client.models import Worker

WORKERS = "/api/v1/workers"


class Workers:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def list(self, *, page_size: int = 100) -> Iterator[Worker]:
        """The newest first, also those that have ended."""
        return self._connection.pages(Worker, WORKERS, limit=page_size)

    def get(self, worker_id: UUID) -> Worker:
        return self._connection.get(Worker, f"{WORKERS}/{segment(worker_id)}")

    def drain(self, worker_id: UUID) -> Worker:
        """It ends what it has, is given nothing more, and then ends."""
        return self._connection.post(Worker, f"{WORKERS}/{segment(worker_id)}/drain")

    def stop(self, worker_id: UUID) -> Worker:
        """It ends at once; what it has is given to others."""
        answer = self._connection.ask("DELETE", f"{WORKERS}/{segment(worker_id)}")
        return Worker.model_validate_json(answer.content)
