"""What went wrong in parts of a run that goes on, until the run's last step has told it."""

from __future__ import annotations

from mlplatform.io.object_store import ObjectStore

PREFIX = "failures"


class Failures:
    """One object for each part of a run: its steps may be processes that know nothing of each other."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store

    def note(self, run_id: str, part: str, reason: str) -> None:
        self._store.put(f"{PREFIX}/{run_id}/{part}", reason.encode())

    def take(self, run_id: str) -> dict[str, str]:
        """{part: reason}, each told once."""
        reasons = {}
        for key in sorted(self._store.list(f"{PREFIX}/{run_id}/")):
            stored = self._store.get(key)
            if stored is not None:
                reasons[key.rsplit("/", 1)[1]] = stored.content.decode()
            self._store.delete(key)
        return reasons
