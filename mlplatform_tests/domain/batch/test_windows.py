from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from mlplatform.domain.batch.pipeline import DataWindows
from mlplatform.domain.batch.windows import Window, WindowError, windowed_rows

MONTH_STARTS = [date(2024 + n // 12, n % 12 + 1, 1) for n in range(24)]


def relative(test: int, gap: int, train: int, unit: str = "months") -> DataWindows:
    lengths = {"test_lookback_units": test, "train_gap_units": gap, "train_lookback_units": train}
    return DataWindows.model_validate({"logic": "relative", "unit_type": unit, "windows": lengths})


def absolute(train_start: str, train_end: str, test_start: str, test_end: str) -> DataWindows:
    dates = {
        "train_start_date": train_start,
        "train_end_date": train_end,
        "test_start_date": test_start,
        "test_end_date": test_end,
    }
    return DataWindows.model_validate({"logic": "absolute", "windows": dates})


def split(days: Any, windows: DataWindows) -> tuple[list[Any], list[Any]]:
    table = pa.table({"day": pa.array(days)})
    rows = windowed_rows(table, "day", windows)
    return table.filter(rows.train)["day"].to_pylist(), table.filter(rows.test)["day"].to_pylist()


def test_months_count_back_from_the_newest_partition() -> None:
    train, test = split(MONTH_STARTS, relative(test=1, gap=2, train=12))
    assert test == [date(2025, 12, 1)]
    assert train == MONTH_STARTS[9:21]


def test_every_day_of_a_month_belongs_to_it() -> None:
    days = [date(2025, 1, 31), date(2025, 2, 1), date(2025, 2, 28), date(2025, 3, 15), date(2025, 3, 1)]
    train, test = split(days, relative(1, 0, 1))
    assert (train, test) == ([date(2025, 2, 1), date(2025, 2, 28)], [date(2025, 3, 15), date(2025, 3, 1)])


@pytest.mark.parametrize(
    ("unit", "train", "test"),
    [
        ("days", Window(date(2024, 2, 27), date(2024, 2, 28)), Window(date(2024, 3, 1), date(2024, 3, 1))),
        ("weeks", Window(date(2024, 2, 5), date(2024, 2, 18)), Window(date(2024, 2, 26), date(2024, 3, 3))),
        ("months", Window(date(2023, 12, 1), date(2024, 1, 31)), Window(date(2024, 3, 1), date(2024, 3, 31))),
        (
            "quarters",
            Window(date(2023, 4, 1), date(2023, 9, 30)),
            Window(date(2024, 1, 1), date(2024, 3, 31)),
        ),
        ("years", Window(date(2021, 1, 1), date(2022, 12, 31)), Window(date(2024, 1, 1), date(2024, 12, 31))),
    ],
)
def test_units_are_those_of_the_calendar(unit: str, train: Window, test: Window) -> None:
    """Two units of training, a gap of one, a test of one, and the newest row on 1 March 2024, a Friday."""
    days = [date(2024, 3, 1) - timedelta(days=n) for n in range(1_500)]
    rows = windowed_rows(pa.table({"day": days}), "day", relative(1, 1, 2, unit))
    assert (rows.train_window, rows.test_window) == (train, test)
    chosen = np.array(days)
    assert (chosen[rows.train].min(), chosen[rows.train].max()) == (train.first, train.last)
    assert (chosen[rows.test].min(), chosen[rows.test].max()) == (test.first, date(2024, 3, 1))


def test_dates_include_both_ends() -> None:
    train, test = split(MONTH_STARTS, absolute("2024-02-01", "2024-04-01", "2024-06-01", "2024-06-01"))
    assert (train, test) == (MONTH_STARTS[1:4], MONTH_STARTS[5:6])


def test_timestamps_and_texts_are_dates() -> None:
    windows = absolute("2025-01-01", "2025-01-31", "2025-02-01", "2025-02-28")
    last_moment = datetime(2025, 1, 31, 23, 59, 59, 999_999)
    assert split([last_moment, datetime(2025, 2, 1)], windows) == ([last_moment], [datetime(2025, 2, 1)])
    assert split(["2025-01-31", "2025-02-01"], windows) == (["2025-01-31"], ["2025-02-01"])
    assert split(
        pa.array([1_738_367_999_999_999_999, 1_738_368_000_000_000_000], pa.timestamp("ns", "UTC")), windows
    )


@pytest.mark.parametrize(
    ("days", "windows", "message"),
    [
        (
            MONTH_STARTS,
            relative(1, 30, 2),
            "no rows in the train window 2023-04-01 to 2023-05-31: day goes from 2024-01-01 to 2025-12-01 in "
            "24",
        ),
        (
            MONTH_STARTS,
            absolute("2024-01-01", "2024-12-31", "2026-01-01", "2026-02-01"),
            "no rows in the test window 2026-01-01 to 2026-02-01: day goes from 2024-01-01",
        ),
        (
            MONTH_STARTS,
            absolute("2024-01-01", "2024-12-31", "2024-12-01", "2025-02-01"),
            "training window 2024-01-01 to 2024-12-31 reaches into the test window 2024-12-01",
        ),
        (
            MONTH_STARTS,
            absolute("2024-03-01", "2024-01-01", "2024-12-01", "2025-02-01"),
            "train window 2024-03-01 to 2024-01-01 ends before it begins",
        ),
        ([date(2025, 1, 1), None], relative(1, 0, 1), "1 of 2 rows have no day.*skip_row"),
        (["yesterday"], relative(1, 0, 1), "day is no date everywhere.*yesterday.*YYYY-MM-DD"),
        ([202501], relative(1, 0, 1), "day is of type int64, and must be a date"),
        (pa.array([], pa.date32()), relative(1, 0, 1), "there are no rows"),
        ([date(2025, 1, 1)], relative(1, 0, 3_000, "years"), "before the year 1"),
    ],
)
def test_windows_that_cannot_be_laid_are_told(days: Any, windows: DataWindows, message: str) -> None:
    with pytest.raises(WindowError, match=message):
        split(days, windows)


def test_a_missing_partition_key_is_named() -> None:
    with pytest.raises(WindowError, match=r"no column 'snapshot'.*did you mean snapshot_date"):
        windowed_rows(pa.table({"snapshot_date": MONTH_STARTS}), "snapshot", relative(1, 0, 1))
