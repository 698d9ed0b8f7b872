"""Training and test rows by time: lengths that count back from the newest partition, or dates."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mlplatform.domain.batch.frames import as_table, is_null, no_such_column
from mlplatform.domain.batch.pipeline import DataWindows
from mlplatform.errors import PlatformError

if TYPE_CHECKING:
    import pyarrow as pa

    from mlplatform.domain.batch.frames import Frame

Value = TypeVar("Value")
MONTHS = {"months": 1, "quarters": 3, "years": 12}
EPOCH = date(1970, 1, 1)
# The epoch was a Thursday; weeks begin on Monday.
EPOCH_WEEKDAY = 3


class WindowError(PlatformError):
    """The rows cannot be divided by these windows; the message names the bounds and the remedy."""


@dataclass(frozen=True)
class Window:
    """Days, both included."""

    first: date
    last: date

    def __str__(self) -> str:
        return f"{self.first} to {self.last}"


@dataclass(frozen=True)
class WindowedRows:
    """(n,) booleans each; a row may be in neither (the gap, or before the training window)."""

    train: np.ndarray
    test: np.ndarray
    train_window: Window
    test_window: Window


def windowed_rows(frame: Frame, partition_key: str, windows: DataWindows) -> WindowedRows:
    """Which rows are in which window.

    Relative lengths count whole calendar units: with `months`, a partition of any day of a month belongs to
    that month, and a test window of 1 is the month of the newest partition. The gap lies between the last
    unit of training and the first of the test.

    Raises:
        WindowError: the partition key is no date or missing somewhere, a window has no rows, or the training
            window reaches into the test window.
    """
    table = as_table(frame)
    if partition_key not in table.column_names:
        raise WindowError(no_such_column(partition_key, table.column_names))
    days = _days(table.column(partition_key), partition_key)
    if not len(days):
        raise WindowError(f"there are no rows, so no {partition_key} to lay windows over")
    train, test = _bounds(windows, int(days.max()))
    if train.last >= test.first:
        raise WindowError(
            f"the training window {train} reaches into the test window {test} or beyond: a model would be "
            "tested on what it has seen; let train_end_date lie before test_start_date"
        )
    masks = {}
    for name, window in (("train", train), ("test", test)):
        if window.first > window.last:
            raise WindowError(f"the {name} window {window} ends before it begins; exchange its dates")
        masks[name] = (days >= _day(window.first)) & (days <= _day(window.last))
        if not masks[name].any():
            raise WindowError(
                f"no rows in the {name} window {window}: {partition_key} goes from {_date(days.min())} to "
                f"{_date(days.max())} in {len(np.unique(days))} partitions; change "
                "training.data_source.data_windows, or load more partitions"
            )
    return WindowedRows(masks["train"], masks["test"], train, test)


def _bounds(windows: DataWindows, newest: int) -> tuple[Window, Window]:
    lengths = windows.windows
    if windows.logic == "absolute":
        dates = (
            lengths.train_start_date,
            lengths.train_end_date,
            lengths.test_start_date,
            lengths.test_end_date,
        )
        train_start, train_end, test_start, test_end = (_given(each) for each in dates)
        return Window(train_start, train_end), Window(test_start, test_end)
    unit = windows.unit_type
    test_end = _unit_of(newest, unit) + 1
    test_start = test_end - _given(lengths.test_lookback_units)
    train_end = test_start - lengths.train_gap_units
    train_start = train_end - _given(lengths.train_lookback_units)
    return _units(train_start, train_end, unit), _units(test_start, test_end, unit)


def _given(value: Value | None) -> Value:
    if value is None:
        raise WindowError("the windows are incomplete; see training.data_source.data_windows")
    return value


def _unit_of(day: int, unit: str) -> int:
    """The number of the unit that the day is in."""
    if unit in MONTHS:
        moment = _date(day)
        return (moment.year * 12 + moment.month - 1) // MONTHS[unit]
    return day if unit == "days" else (day + EPOCH_WEEKDAY) // 7


def _units(start: int, end: int, unit: str) -> Window:
    """From the first day of unit `start` to the last one before unit `end`."""
    try:
        return Window(_first_day(start, unit), _first_day(end, unit) - timedelta(days=1))
    except (ValueError, OverflowError):
        raise WindowError(
            f"windows of {end - start} {unit} reach back before the year 1; shorten "
            "training.data_source.data_windows"
        ) from None


def _first_day(number: int, unit: str) -> date:
    if unit in MONTHS:
        year, month = divmod(number * MONTHS[unit], 12)
        return date(year, month + 1, 1)
    return _date(number if unit == "days" else number * 7 - EPOCH_WEEKDAY)


def _days(column: pa.ChunkedArray, name: str) -> np.ndarray:
    """(n,) days since 1970 of dates, timestamps (in UTC, if they have a zone) or ISO texts."""
    import pyarrow as pa

    missing = int(is_null(column).sum())
    if missing:
        raise WindowError(
            f"{missing} of {len(column)} rows have no {name}, so they are in no window; remove them by the "
            "data check null_threshold with on_failure: skip_row"
        )
    try:
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            column = column.cast(pa.timestamp("us"))
        elif not (pa.types.is_date(column.type) or pa.types.is_timestamp(column.type)):
            raise WindowError(f"{name} is of type {column.type}, and must be a date or a timestamp")
        # Not cast to a date at once: timestamps within a day refuse that.
        moments = column.cast(pa.timestamp("us"), safe=False).to_numpy()
    except pa.ArrowInvalid as error:
        raise WindowError(f"{name} is no date everywhere: {error}; write dates as YYYY-MM-DD") from error
    return moments.astype("datetime64[D]").astype(np.int64)


def _day(day: date) -> int:
    return (day - EPOCH).days


def _date(day: int | np.integer) -> date:
    return EPOCH + timedelta(days=int(day))
