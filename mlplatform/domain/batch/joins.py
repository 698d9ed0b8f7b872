"""Features joined to labels: by key, or as they were known at the time of each label."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mlplatform.domain.batch.frames import arrow_compute, as_table, examples, is_null, no_such_column
from mlplatform.domain.batch.pipeline import FeatureTable, PointInTime
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.batch.frames import Frame

MAX_FACTOR = 1.1
DAY_MICROSECONDS = 86_400 * 1_000_000
NONE = -1


class JoinError(PlatformError):
    """The tables cannot be joined; the message names table and columns, and the remedy."""


@dataclass(frozen=True)
class JoinReport:
    """`matched` of the `rows_in` label rows found features; `repeated_keys` had more than one row of them
    (not counted in a point-in-time join, where that is what the table is for).
    """

    table: str
    rows_in: int
    rows_out: int
    matched: int
    repeated_keys: int = 0

    @property
    def factor(self) -> float:
        return self.rows_out / self.rows_in if self.rows_in else 1.0


def join_feature_table(
    labels: Frame, features: Frame, spec: FeatureTable, found: str | None = None
) -> tuple[pa.Table, JoinReport]:
    """The labels' columns followed by those of the feature table, without its keys.

    `found` names a column to add, of booleans: whether the row found features.

    Without `point_in_time`, each label row is joined to all feature rows of its key, in the labels' order. A
    missing key (also one part of several) matches nothing.

    With it, each label row gets the newest feature row of its key that was known at its `label_time` T: its
    `event_time` and, if given, its `created_time` are not after T, and with `ttl_days` its event is not older
    than that at T. Of several with the same event time the one that was created last counts; if that does
    not decide, the largest in the order of the remaining columns, so that the order of the rows plays no
    part. There is exactly one row out for each label row, in order (with `join_type: inner` those without
    features are left out). The times themselves are not features, and are not in the result. A date is its
    first moment, a time without a zone is in UTC, and a feature row without a time was never known.

    Raises:
        JoinError: a column is missing, exists on both sides or has another type on the other side; a label
            has no time; or the join makes more than 1.1 times the rows (`fan_out_check`).
    """
    import pyarrow as pa

    left, right = as_table(labels), as_table(features)
    moment = spec.point_in_time
    times = [moment.event_time, moment.created_time] if moment else []
    hidden = {*spec.join_key, *filter(None, times)}
    added = [name for name in right.column_names if name not in hidden]
    _check_columns(left, right, spec, added)
    left_keys, right_keys = _key_codes(left, right, spec)
    if moment:
        rows = _newest_known(left, right, left_keys, right_keys, spec, moment)
        matched, repeated = int((rows != NONE).sum()), 0
        left_rows = np.arange(left.num_rows)
        if spec.join_type == "inner":
            left_rows, rows = left_rows[rows != NONE], rows[rows != NONE]
    else:
        left_rows, rows, matched, repeated = _pairs(left, right, left_keys, right_keys, spec)
    result = left if len(left_rows) == left.num_rows and moment else left.take(left_rows)
    picked = _take(right.select(added), rows)
    for name in added:
        result = result.append_column(name, picked.column(name))
    if found:
        result = result.append_column(found, pa.array(rows != NONE))
    return result, JoinReport(spec.table, left.num_rows, result.num_rows, matched, repeated)


def _check_columns(left: pa.Table, right: pa.Table, spec: FeatureTable, added: Sequence[str]) -> None:
    where = f"feature table {spec.table}"
    moment = spec.point_in_time
    for name in [*spec.join_key, *([moment.label_time] if moment else [])]:
        if name not in left.column_names:
            raise JoinError(
                f"{where}: on the label table's side there is {no_such_column(name, left.column_names)}"
            )
    times = [moment.event_time, moment.created_time] if moment else []
    for name in [*spec.join_key, *times]:
        if name is not None and name not in right.column_names:
            raise JoinError(f"{where} has {no_such_column(name, right.column_names)}")
    both = [name for name in added if name in left.column_names]
    if both:
        raise JoinError(
            f"{where}: {', '.join(both)} would come from it and is there already; add it to join_key if it "
            "tells rows apart, else rename it in one of the tables (a view does it)"
        )


def _key_codes(left: pa.Table, right: pa.Table, spec: FeatureTable) -> tuple[np.ndarray, np.ndarray]:
    """(n,) and (m,) numbers that are equal where all key columns are; NONE where one of them is missing."""
    codes = np.zeros(left.num_rows + right.num_rows, dtype=np.int64)
    missing = np.zeros(len(codes), dtype=bool)
    for position, name in enumerate(spec.join_key):
        column = _together(
            left.column(name), right.column(name), f"feature table {spec.table}, join_key {name}"
        )
        missing |= is_null(column)
        encoded = column.dictionary_encode(null_encoding="encode").combine_chunks()
        numbers = np.asarray(encoded.indices, dtype=np.int64)
        if position:
            # Dense again, so that the product of two counts stays far from overflowing.
            _, numbers = np.unique(codes * len(encoded.dictionary) + numbers, return_inverse=True)
        codes = numbers
    codes = np.where(missing, NONE, codes)
    return codes[: left.num_rows], codes[left.num_rows :]


def _together(left: pa.ChunkedArray, right: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    """Both columns as one, if they are of one kind."""
    import pyarrow as pa

    kinds = {_kind(column.type) for column in (left, right) if not pa.types.is_null(column.type)}
    if len(kinds) > 1:
        raise JoinError(
            f"{where} is of type {left.type} on the label table's side and of type {right.type} here, so "
            "that nothing would match; give both the same type"
        )
    common = {
        "text": pa.string(),
        "number": pa.int64() if all(pa.types.is_integer(c.type) for c in (left, right)) else pa.float64(),
        "time": pa.timestamp("us"),
        "other": left.type,
    }[kinds.pop() if kinds else "text"]
    return pa.chunked_array([*left.cast(common).chunks, *right.cast(common).chunks], common)


def _kind(kind: pa.DataType) -> str:
    import pyarrow as pa

    types = pa.types
    if types.is_string(kind) or types.is_large_string(kind):
        return "text"
    if types.is_integer(kind) or types.is_floating(kind):
        return "number"
    return "time" if types.is_date(kind) or types.is_timestamp(kind) else "other"


def _pairs(
    left: pa.Table, right: pa.Table, left_keys: np.ndarray, right_keys: np.ndarray, spec: FeatureTable
) -> tuple[np.ndarray, np.ndarray, int, int]:
    """Row numbers of both sides for each row of the join; how many label rows match, and repeated keys."""
    order = np.argsort(right_keys, kind="stable")
    ordered = right_keys[order]
    starts = np.searchsorted(ordered, left_keys, side="left")
    counts = np.searchsorted(ordered, left_keys, side="right") - starts
    counts[left_keys == NONE] = 0
    wanted = np.maximum(counts, 1) if spec.join_type == "left" else counts
    total = int(wanted.sum())
    known = ordered[ordered != NONE]
    repeats = np.unique(known[1:][known[1:] == known[:-1]])
    if spec.fan_out_check and total > MAX_FACTOR * left.num_rows:
        many = np.flatnonzero(counts > 1)
        shown = "; ".join(
            f"{text} ({counts[row]} rows)"
            for row, text in zip(many, examples(left, many, spec.join_key), strict=False)
        )
        raise JoinError(
            f"feature table {spec.table}: the join on {', '.join(spec.join_key)} makes {total} rows of "
            f"{left.num_rows} ({total / left.num_rows:.2f} times, {MAX_FACTOR} are allowed), since "
            f"{len(repeats)} "
            f"keys are repeated in it, such as {shown}; complete join_key so that it is unique there, use "
            "point_in_time, or set fan_out_check: false"
        )
    left_rows = np.repeat(np.arange(left.num_rows), wanted)
    # Counts 0, 1, 2 … within the rows of one label.
    within = np.arange(total) - np.repeat(np.cumsum(wanted) - wanted, wanted)
    found = np.repeat(counts > 0, wanted)
    positions = np.where(found, np.repeat(starts, wanted) + within, 0)
    rows = np.where(found, order[positions] if len(order) else NONE, NONE)
    return left_rows, rows, int((counts > 0).sum()), len(repeats)


def _newest_known(
    left: pa.Table,
    right: pa.Table,
    left_keys: np.ndarray,
    right_keys: np.ndarray,
    spec: FeatureTable,
    moment: PointInTime,
) -> np.ndarray:
    """(n,) the feature row of each label row, NONE if there is none.

    A feature row is known from the later of its two times on. So among the rows of a key in order of that
    time, what is known at T is a beginning of them, and the best of a beginning is a running maximum.
    """
    where = f"feature table {spec.table}"
    label_times, no_time = _microseconds(
        left.column(moment.label_time), f"{where}, label_time {moment.label_time}"
    )
    if no_time.any():
        rows = np.flatnonzero(no_time)
        shown = "; ".join(examples(left, rows, spec.join_key))
        raise JoinError(
            f"{where}: {len(rows)} label rows have no {moment.label_time} ({', '.join(spec.join_key)} "
            f"{shown}); "
            "without a time, nothing says what was known"
        )
    events, unusable = _microseconds(
        right.column(moment.event_time), f"{where}, event_time {moment.event_time}"
    )
    created = events
    if moment.created_time:
        created, never = _microseconds(
            right.column(moment.created_time), f"{where}, created_time {moment.created_time}"
        )
        unusable = unusable | never
    usable = np.flatnonzero(~unusable & (right_keys != NONE))
    if not len(usable) or not left.num_rows:
        return np.full(left.num_rows, NONE)

    best_first = _order(right, usable, [right_keys, events, created], moment, spec)
    known_from = np.maximum(events, created)
    rank = np.empty(right.num_rows, dtype=np.int64)
    rank[best_first] = np.arange(len(best_first))
    by_time = usable[np.lexsort((known_from[usable], right_keys[usable]))]
    # Ranks of one key are all above those of the keys before it: the maximum starts anew with each key.
    best = best_first[np.maximum.accumulate(rank[by_time])]

    ends = np.cumsum(np.bincount(right_keys[usable], minlength=int(left_keys.max()) + 1))
    keys = np.maximum(left_keys, 0)
    start, end = np.where(keys > 0, ends[keys - 1], 0), ends[keys]
    position = _first_after(known_from[by_time], start, end, label_times) - 1
    found = (position >= start) & (left_keys != NONE)
    rows = np.where(found, best[position], NONE)
    if moment.ttl_days is not None:
        oldest = label_times - round(moment.ttl_days * DAY_MICROSECONDS)
        rows = np.where(found & (events[rows] >= oldest), rows, NONE)
    return rows


def _first_after(times: np.ndarray, start: np.ndarray, end: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """(n,) the first position from `start` to `end`, between which times ascend, that is after the limit."""
    low, high = start.copy(), end.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        later = np.zeros(len(low), dtype=bool)
        later[open_] = times[middle[open_]] > limits[open_]
        high = np.where(open_ & later, middle, high)
        low = np.where(open_ & ~later, middle + 1, low)
    return low


def _order(
    right: pa.Table, usable: np.ndarray, order_by: list[np.ndarray], moment: PointInTime, spec: FeatureTable
) -> np.ndarray:
    """The usable rows in order of these numbers; where all of them are equal, of the remaining columns."""
    rows = usable[np.lexsort([values[usable] for values in reversed(order_by)])]
    equal = np.ones(len(rows) - 1, dtype=bool)
    for values in order_by:
        equal &= values[rows][1:] == values[rows][:-1]
    bookkeeping = {*spec.join_key, moment.event_time, moment.created_time}
    rest = [name for name in right.column_names if name not in bookkeeping]
    if not equal.any() or not rest:
        return rows
    tied = np.zeros(len(rows), dtype=bool)
    tied[1:] |= equal
    tied[:-1] |= equal
    places = np.flatnonzero(tied)
    # Each run of equal rows keeps its places: they are sorted within it.
    runs = np.cumsum(np.concatenate([[True], ~equal]))[places]
    ranks = _ranks(right.select(rest).take(rows[places]))
    rows[places] = rows[places][np.lexsort((ranks, runs))]
    return rows


def _ranks(table: pa.Table) -> np.ndarray:
    """(n,) the place of each row in the order of all columns, missing values first."""
    import pyarrow as pa

    pc = arrow_compute()
    plain = [
        column
        if _kind(column.type) != "other" or pa.types.is_boolean(column.type)
        # Lists and structures have no order of their own.
        else pa.array([None if value is None else repr(value) for value in column.to_pylist()])
        for column in table.columns
    ]
    numbered = pa.table(plain, names=[str(number) for number in range(len(plain))])
    order = pc.sort_indices(
        numbered, sort_keys=[(name, "ascending", "at_start") for name in numbered.column_names]
    )
    ranks = np.empty(len(table), dtype=np.int64)
    ranks[order.to_numpy()] = np.arange(len(table))
    return ranks


def _microseconds(column: pa.ChunkedArray, where: str) -> tuple[np.ndarray, np.ndarray]:
    """(n,) int64 since 1970 in UTC (0 where missing), and where it is missing."""
    import pyarrow as pa

    pc = arrow_compute()

    try:
        if _kind(column.type) == "text":
            column = column.cast(pa.timestamp("us"))
        elif _kind(column.type) != "time":
            raise JoinError(f"{where} is of type {column.type}, and must be a date or a timestamp")
        # Rounded down: nothing becomes known earlier than a microsecond before it was.
        moments = pc.cast(column, pa.timestamp("us"), safe=False)
    except pa.ArrowInvalid as error:
        raise JoinError(f"{where} is no time everywhere: {error}; write times in ISO 8601") from error
    missing = is_null(moments)
    filled = pc.fill_null(pc.cast(moments, pa.int64()), 0)
    return filled.to_numpy(), missing


def _take(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows, and one of nulls for each NONE."""
    import pyarrow as pa

    return table.take(pa.array(rows, mask=rows == NONE))
