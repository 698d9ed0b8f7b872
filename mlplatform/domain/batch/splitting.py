"""The test set of a training without time windows: stratified, and the same for a customer every time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from mlplatform.domain.batch.frames import (
    arrow_compute,
    as_table,
    examples,
    is_null,
    key_hashes,
    no_such_column,
)
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.batch.frames import Frame

TEST_SHARE = 0.2
SEED = 42
MIN_ROWS = 10
# One row to learn from and one to test on.
MIN_ROWS_OF_A_CLASS = 2


class SplitError(PlatformError):
    """The rows cannot be split; the message says why and the remedy."""


def held_back_rows(
    frame: Frame, key: str, target: str | None, share: float = TEST_SHARE, seed: int = SEED
) -> np.ndarray:
    """(n,) booleans, True for the rows of the test set.

    Within each class of `target` (None: one class, as for regression) the rows are ordered by a seeded hash
    of their key, and the first `share` of them, rounded, is the test set. So the order of the rows plays no
    part, and when rows are added or removed, only those whose hash is near the threshold change sides:
    about as many as the threshold moves past, and never more than were added or removed.

    Raises:
        SplitError: a key is missing or repeated, a target is missing, there is one class only, or too few
            rows of all or of a class.
    """
    pc = arrow_compute()

    table = as_table(frame)
    for column in filter(None, (key, target)):
        if column not in table.column_names:
            raise SplitError(no_such_column(column, table.column_names))
    _check_keys(table, key)
    if table.num_rows < MIN_ROWS:
        raise SplitError(
            f"{table.num_rows} rows are too few to train and to test: there must be at least {MIN_ROWS}"
        )
    hashes = key_hashes(table, [key], hash_key=f"split{seed:011d}"[:16])
    if target is None:
        return _first(hashes, share)
    missing = np.flatnonzero(is_null(table.column(target)))
    if len(missing):
        raise SplitError(
            f"{len(missing)} rows have no {target}, first of {key} "
            f"{'; '.join(examples(table, missing, [key]))}: "
            "remove them, or add the data check null_threshold with on_failure: skip_row"
        )
    encoded = pc.dictionary_encode(table.column(target)).combine_chunks()
    classes = np.asarray(encoded.indices)
    names = encoded.dictionary.to_pylist()
    counts = np.bincount(classes, minlength=len(names))
    if len(names) < 2:
        raise SplitError(
            f"{target} is {names[0]} in all {table.num_rows} rows: a classifier needs rows of two classes at "
            "least"
        )
    rare = [
        f"{name} ({count})" for name, count in zip(names, counts, strict=True) if count < MIN_ROWS_OF_A_CLASS
    ]
    if rare:
        raise SplitError(
            f"{target}: too few rows of {', '.join(rare)} to have one in training and one in the test; "
            f"add rows, or leave the class out ({MIN_ROWS_OF_A_CLASS} rows are needed)"
        )
    chosen = np.zeros(table.num_rows, dtype=bool)
    for number in range(len(names)):
        rows = np.flatnonzero(classes == number)
        chosen[rows] = _first(hashes[rows], share)
    return chosen


def _first(hashes: np.ndarray, share: float) -> np.ndarray:
    count = len(hashes)
    wanted = min(max(round(count * share), 1), count - 1)
    chosen = np.zeros(count, dtype=bool)
    chosen[np.argsort(hashes, kind="stable")[:wanted]] = True
    return chosen


def _check_keys(table: pa.Table, key: str) -> None:
    column = table.column(key)
    missing = np.flatnonzero(is_null(column))
    if len(missing):
        others = [name for name in table.column_names if name != key][:3]
        shown = "; ".join(examples(table, missing, others)) if others else f"row {missing[0] + 1}"
        raise SplitError(
            f"{len(missing)} rows have no {key} (first: {shown}): give them one, or remove them by the data "
            "check null_threshold with on_failure: skip_row"
        )
    hashes = key_hashes(table, [key])
    order = np.argsort(hashes, kind="stable")
    repeated = np.sort(order[1:][hashes[order][1:] == hashes[order][:-1]])
    if len(repeated):
        raise SplitError(
            f"{key} is repeated in {len(repeated)} rows (first: "
            f"{'; '.join(examples(table, repeated, [key]))}): a "
            "customer would stand in training and test; make it unique, or split by time "
            "(training.data_source.data_windows)"
        )
