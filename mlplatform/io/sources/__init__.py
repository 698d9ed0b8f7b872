"""Where observations come from: replay of a file, a live price, and what is pushed."""

from __future__ import annotations

from typing import Protocol

from mlplatform.domain.observations import Submission


class Source(Protocol):
    """Gives submissions in order of their positions; reading takes nothing away."""

    name: str

    def available(self, after: int) -> int:
        """The largest position that may be read now by one who has read up to `after` (0: nothing yet)."""
        ...

    def read(self, after: int, limit: int | None = None) -> list[Submission]:
        """Submissions after that position, as far as available, at most `limit`.

        Raises:
            SourceError: the source cannot be read.
        """
        ...
