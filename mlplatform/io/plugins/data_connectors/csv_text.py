"""Rows as CSV: texts in quotes, so that an empty text and a missing value stay different."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def csv_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """The rows without a header. Raises pyarrow.ArrowException for a column that has no CSV form."""
    import pyarrow as pa
    from pyarrow import csv

    sink = pa.BufferOutputStream()
    csv.write_csv(decoded(batch), sink, csv.WriteOptions(include_header=False, batch_size=8_192))
    return sink.getvalue()


def decoded(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The batch with plain columns instead of dictionaries."""
    import pyarrow as pa

    columns = [
        column.dictionary_decode() if isinstance(column, pa.DictionaryArray) else column
        for column in batch.columns
    ]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)
