"""Where tables come from and go to."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from mlplatform.errors import PlatformError, TransientError

if TYPE_CHECKING:
    import pyarrow as pa

# Rows of a chunk: some 10 MB of a narrow table.
CHUNK_ROWS = 65_536


class DataError(PlatformError):
    """A table cannot be read or written; the message names the table and the remedy."""


class DataUnavailable(DataError, TransientError):
    """The place of the tables does not answer now: later it may, so that a step is tried again."""


class DataConnector(Protocol):
    """Made as `Connector(config, settings, root)`: the profile's configuration with its secrets revealed
    (empty: the platform's own server), the process's `Settings`, and the project's folder.
    """

    # What its configuration may hold; other keys are refused when the profile is validated.
    config_keys: tuple[str, ...]

    def schema(self, table: str) -> pa.Schema:
        """Raises DataError if there is no such table."""
        ...

    def read(self, table: str) -> Iterator[pa.RecordBatch]:
        """The rows in chunks of at most CHUNK_ROWS, from one consistent state of the table, so that memory
        does not grow with it. A table without rows gives no chunk. Raises DataError.
        """
        ...

    def publish(
        self, table: str, batches: Iterator[pa.RecordBatch], key: Sequence[str], run_column: str, run_id: str
    ) -> int:
        """Writes the rows of one run, all or none, and returns how many; rows which this run (those whose
        `run_column` is `run_id`) wrote before are replaced, so that a retry leaves as many. `key` is what is
        unique in the run. The table is created if it does not exist. Raises DataError.
        """
        ...

    def check(self) -> None:
        """Raises DataError unless the connector can be used now (`mlplatform debug`)."""
        ...
