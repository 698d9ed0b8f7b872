"""The types of a CSV file's columns: the narrowest that every one of their values has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mlplatform.domain.batch.frames import arrow_compute

if TYPE_CHECKING:
    import pyarrow as pa

# Missing when they are not in quotes, as for pandas; "" in quotes is a text without letters.
MISSING = ["", "NA", "N/A", "NaN", "nan", "NULL", "null"]
# Ids such as 007 and those that are too long for a number would change if they became one.
NOT_AN_INTEGER = r"^[+-]?0[0-9]"
NOT_A_NUMBER = r"^[+-]?(0[0-9]|[0-9]{16})"


class ColumnTypes:
    """Reads a file's columns as text, chunk by chunk, and narrows down what they may be."""

    def __init__(self, columns: list[str]) -> None:
        import pyarrow as pa

        self._candidates: dict[str, list[pa.DataType]] = {
            column: [
                pa.int64(),
                pa.float64(),
                pa.bool_(),
                pa.date32(),
                pa.timestamp("us"),
                pa.timestamp("us", "UTC"),
                pa.string(),
            ]
            for column in columns
        }
        self._empty = set(columns)

    def add(self, batch: pa.RecordBatch) -> None:
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if column.null_count == len(column):
                continue
            self._empty.discard(name)
            candidates = self._candidates[name]
            while not _can_be(column, candidates[0]):
                del candidates[0]

    def found(self) -> dict[str, pa.DataType]:
        """A column without any value counts as numbers that are missing."""
        import pyarrow as pa

        return {
            name: pa.float64() if name in self._empty else candidates[0]
            for name, candidates in self._candidates.items()
        }


def _can_be(column: pa.Array, wanted: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_string(wanted):
        return True
    pc = arrow_compute()
    refused = {pa.int64(): NOT_AN_INTEGER, pa.float64(): NOT_A_NUMBER}.get(wanted)
    if refused and pc.any(pc.match_substring_regex(column, refused)).as_py():
        return False
    try:
        pc.cast(column, wanted)
    except pa.ArrowInvalid:
        return False
    return True
