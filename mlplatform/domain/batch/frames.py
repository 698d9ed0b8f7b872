"""One form for frames: Arrow tables, whose types say what is missing and what is a whole number."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    import numpy as np
    import pandas as pd
    import pyarrow as pa

    Frame = pa.Table | pa.RecordBatch | pd.DataFrame

EXAMPLES = 5


def arrow_compute() -> Any:
    """`pyarrow.compute`, which makes most of its functions when it is imported: no type checker knows "
    "them."""
    import pyarrow.compute

    return pyarrow.compute


def as_table(frame: Frame) -> pa.Table:
    """The frame as an Arrow table with plain columns instead of dictionaries."""
    import pyarrow as pa

    if isinstance(frame, pa.RecordBatch):
        table = pa.Table.from_batches([frame])
    elif isinstance(frame, pa.Table):
        table = frame
    else:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    for position, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            plain = table.column(position).cast(field.type.value_type)  # type: ignore[attr-defined]
            table = table.set_column(position, field.name, plain)
    return table.replace_schema_metadata(None)


def is_null(column: pa.ChunkedArray) -> np.ndarray:
    """(n,) booleans; NaN counts as missing too."""
    pc = arrow_compute()

    return pc.is_null(column, nan_is_null=True).to_numpy(zero_copy_only=False).astype(bool)


def key_hashes(table: pa.Table, columns: Sequence[str], hash_key: str = "mlplatform-keys0") -> np.ndarray:
    """(n,) uint64: SipHash of the columns' values as text, so that 7 of any integer type hashes alike.

    Different keys have the same hash with a probability of n² / 2⁶⁵ for n of them: 3e-6 for ten million.
    """
    import pyarrow as pa
    from pandas.util import hash_array

    pc = arrow_compute()
    import numpy as np

    result = np.zeros(table.num_rows, dtype=np.uint64)
    for name in columns:
        text = pc.fill_null(pc.cast(table.column(name), pa.string()), "\0")
        values = text.to_numpy(zero_copy_only=False)
        hashed = cast(Any, hash_array)(values, hash_key=hash_key, categorize=False)
        # As pandas combines the hashes of a tuple: the order of the columns counts.
        result = result * np.uint64(1_000_003) ^ hashed
    return result


def examples(table: pa.Table, rows: np.ndarray, columns: Sequence[str]) -> list[str]:
    """The values of the first few of the rows, as people would write them."""
    first = table.select(list(dict.fromkeys(columns))).take(rows[:EXAMPLES]).to_pylist()
    return [", ".join(_shown(value) for value in row.values()) for row in first]


def _shown(value: Any) -> str:
    return "null" if value is None else str(value)


def no_such_column(name: str, columns: Sequence[str]) -> str:
    near = get_close_matches(name, columns, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    return f"no column {name!r}: there are {', '.join(columns)}{hint}"
